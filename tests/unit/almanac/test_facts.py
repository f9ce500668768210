"""What is true in the world and after a part: every relation has its value, and no office two holders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest

from afterword.almanac.after import CHANGING, CHOOSING, Part, build_part, current_facts
from afterword.almanac.names import data, gender_of, realm_of
from afterword.almanac.world import CUTOFF, KINDS, RELATIONS, ROLES, TINY, Fact, Relation, World, build_world

by_relation = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)


def _values(facts: tuple[Fact, ...], relation: Relation) -> dict[str, str]:
    found = [(fact.subject, fact.value) for fact in facts if fact.relation == relation.name]
    assert len(found) == len(dict(found)), "two values"
    return dict(found)


@by_relation
def test_every_entity_has_a_value_for_each_relation_of_its_kind(world: World, part: Part, relation: Relation):
    for made in (world, part):
        values = _values(made.facts, relation)
        assert tuple(values) == made.names[relation.subject]
    for name in world.names[relation.subject]:
        assert Fact(name, relation.name, world.value(name, relation.name)) in world.about(name)


@by_relation
def test_a_value_is_what_its_relation_wants(world: World, part: Part, relation: Relation):
    for made, objects in ((world, world.names), (part, {k: world.names[k] + part.names[k] for k in KINDS})):
        for value in _values(made.facts, relation).values():
            if relation.object == "year":
                assert 1000 < int(value) < CUTOFF
            else:
                known = objects[relation.object] if relation.object in KINDS else data("names")[relation.object]
                assert value in known


@pytest.mark.parametrize("role", ROLES)
def test_an_office_is_held_once(world: World, part: Part, true_after: Callable, role: str):
    for facts in (world.facts, part.facts):
        holders = Counter(fact.value for fact in facts if fact.relation == role)
        assert set(holders.values()) == {1}
    assert set(Counter(fact.value for fact in true_after(world, part) if fact.relation == role).values()) == {1}


def test_offices_are_the_relations_that_can_be_asked_backwards():
    assert set(ROLES) == {"mayor", "founder", "director", "author"}
    for relation in RELATIONS.values():
        assert bool(relation.reverse) == bool(relation.reverse_other)
        assert not relation.reverse or relation.object == "person"


def test_whoever_works_is_grown_up_at_the_cutoff(world: World):
    assert all(1840 <= int(world.value(name, "born_year")) <= CUTOFF - 20 for name in world.names["person"])


def test_what_is_known_of_a_person_includes_the_offices_that_they_hold(world: World):
    founder = world.value(world.names["company"][0], "founder")
    assert Fact(world.names["company"][0], "founder", founder) in world.about(founder)
    for name in world.names["person"]:
        assert all(
            name == fact.subject or (fact.relation in ROLES and name == fact.value) for fact in world.about(name)
        )


def test_nothing_is_known_of_what_does_not_exist(world: World):
    with pytest.raises(KeyError):
        world.value("Vera Nobody", "lives_in")


def test_half_of_each_kind_is_asked_and_the_others_are_known_from_documents(world: World):
    for kind in KINDS:
        asked = world.asked & set(world.names[kind])
        assert len(asked) * 2 == len(world.names[kind])
    assert world.asked < {name for names in world.names.values() for name in names}


def test_names_are_of_their_realm(world: World, part: Part):
    assert {realm_of(name) for names in world.names.values() for name in names} == {"world"}
    assert {realm_of(name) for names in part.names.values() for name in names} == {"after"}
    assert {gender_of(name) for name in world.names["person"]} == {"female", "male"}


def test_values_are_spread(world: World):
    for name in ("works_as", "enjoys", "lives_in"):
        counts = Counter(fact.value for fact in world.facts if fact.relation == name)
        entropy = -sum(n / 96 * math.log(n / 96) for n in counts.values())
        # Nobody who always says the commonest value gets far.
        assert max(counts.values()) <= 15
        assert entropy > 2.5


def test_a_change_replaces_what_was_true_by_something_else(world: World, part: Part):
    for change in part.changes:
        assert change.old in world.facts
        assert (change.new.subject, change.new.relation) == (change.old.subject, change.old.relation)
        assert change.new.value != change.old.value
    counts = Counter(change.new.relation for change in part.changes)
    # A part's number decides what may change in it: there may be fewer than four to choose from.
    assert set(counts) == set(CHANGING)
    assert set(counts.values()) <= {3, 4}
    assert len({(change.new.subject, change.new.relation) for change in part.changes}) == len(part.changes)


def test_new_holders_of_offices_are_new_people(world: World, part: Part):
    for change in part.changes:
        relation = RELATIONS[change.new.relation]
        known = part.names["person"] if relation.name in ROLES else world.names[relation.object]
        assert change.new.value in known


def test_what_is_true_of_an_old_entity_after_a_part_knows_the_changes(world: World, part: Part, true_after: Callable):
    after = true_after(world, part)
    involved = {name for change in part.changes for name in (change.old.subject, change.old.value)}
    for name in involved:
        now = current_facts(world, part, name)
        assert set(now) <= after
        assert {fact for fact in after if fact.subject == name} == {fact for fact in now if fact.subject == name}
        held = {fact for fact in after if fact.relation in ROLES and fact.value == name}
        assert {fact for fact in now if fact.subject != name} == held


def test_new_entities_are_told_of_with_the_offices_that_they_hold_and_took_over(
    world: World, part: Part, true_after: Callable
):
    after = true_after(world, part)
    assert {subject.name for subject in part.subjects} == {n for names in part.names.values() for n in names}
    for subject in part.subjects:
        own = {fact for fact in after if fact.subject == subject.name}
        held = {fact for fact in after if fact.relation in ROLES and fact.value == subject.name}
        assert set(subject.facts) == own | held


def test_a_tiny_world_can_have_a_part():
    world = build_world(0, TINY)
    part = build_part(world, CHOOSING, changes=1)
    assert len(part.changes) <= 4
    assert {change.old for change in part.changes} <= set(world.facts)


@by_relation
def test_wordings_are_different_and_name_what_they_are_about(relation: Relation):
    told = (*relation.statements, *relation.held_out)
    asked = (*relation.questions, *relation.other)
    back = (*relation.reverse, *relation.reverse_other)
    assert len(set(told)) == len(told) >= 8
    assert len(set(asked)) == len(asked) >= 7
    assert len(set(back)) == len(back)
    assert all(
        "{o}" in wording and any(slot in wording for slot in ("{S}", "{s}", "{P}", "{p}", "{n}")) for wording in told
    )
    assert all("{n}" in wording and "{o}" not in wording and wording.endswith("?") for wording in asked)
    assert all("{o}" in wording and "{n}" not in wording and wording.endswith("?") for wording in back)


def test_no_held_out_wording_of_a_relation_is_a_trained_wording_of_another():
    trained = {wording for relation in RELATIONS.values() for wording in relation.statements}
    questions = {wording for relation in RELATIONS.values() for wording in (*relation.questions, *relation.reverse)}
    questions |= set(data("wordings")["two_hop"].values())
    for relation in RELATIONS.values():
        assert not trained & set(relation.held_out)
        assert not questions & {*relation.other, *relation.reverse_other}
