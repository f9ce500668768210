"""The suite asks of a part's news and of everything before it; written to files, it is read as it was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from afterword.almanac.after import CHANGING, CHOOSING, Part, build_part, write_documents
from afterword.almanac.exercises import UNKNOWN
from afterword.almanac.files import embedded_suite, write_files
from afterword.almanac.general import general_texts
from afterword.almanac.suite import RETENTION, VERSION, build_suite, halves_of
from afterword.almanac.world import RELATIONS, ROLES, Fact, Size, World
from afterword.almanac.writing import ask, tell
from afterword.corpus import read_corpus
from afterword.evaluation.checks import passes
from afterword.evaluation.right_answers import says
from afterword.evaluation.suites import Item, Suite, load_suite
from almanac_build.card import card_suite

LEARNING = ("new_direct", "new_other_wording", "new_reverse", "changed", "new_two_hop")


@pytest.fixture(scope="module")
def suites(world: World, parts: tuple[Part, Part]) -> dict[int, Suite]:
    return {part.number: build_suite(world, part) for part in parts}


@pytest.fixture
def suite(suites: dict[int, Suite], part: Part) -> Suite:
    return suites[part.number]


def _of(suite: Suite, skill: str) -> list[Item]:
    return [item for item in suite.items if item.skill == skill]


def test_ids_and_prompts_of_a_skill_are_its_own(suite: Suite):
    ids = Counter(item.id for item in suite.items)
    assert set(ids.values()) == {1}
    assert len({(item.skill, item.prompt) for item in suite.items}) == len(suite.items)


@pytest.mark.parametrize("skill", [*RETENTION, "unchanged_of_changed", *LEARNING])
def test_both_splits_have_items_of_every_skill(suite: Suite, skill: str):
    splits = Counter(item.split for item in _of(suite, skill))
    assert set(splits) == {"dev", "test"}
    assert {item.part for item in _of(suite, skill)} == {"learning" if skill in LEARNING else "retention"}


@pytest.mark.parametrize("skill", RETENTION)
def test_retention_has_as_many_items_as_it_says(suite: Suite, skill: str):
    assert Counter(item.split for item in _of(suite, skill)) == dict.fromkeys(("dev", "test"), RETENTION[skill][1])


def _entities(item: Item, part: Part) -> set[str]:
    """Whom of the part the item is about: new entities, and those that changed."""
    known = {*(name for names in part.names.values() for name in names), *(c.old.subject for c in part.changes)}
    # A person is also named who answers a question about a town: the town is what is asked about.
    return {(item.unit or "").partition(" of ")[2]} & known


def test_dev_and_test_ask_about_different_entities(suite: Suite, part: Part):
    skills = (*LEARNING, "unchanged_of_changed")
    about = {
        split: {name for i in suite.items if i.skill in skills and i.split == split for name in _entities(i, part)}
        for split in ("dev", "test")
    }
    assert not about["dev"] & about["test"]
    assert about["dev"] | about["test"] == set(halves_of(part))


def test_each_half_has_as_many_of_every_kind_and_of_every_change(part: Part):
    halves = halves_of(part)
    for names in part.names.values():
        assert abs(Counter(halves[name] for name in names)["dev"] - len(names) / 2) <= 0.5
    for relation in CHANGING:
        names = [change.old.subject for change in part.changes if change.old.relation == relation]
        # Whoever changed twice is counted where the first change is.
        assert abs(Counter(halves[name] for name in names)["dev"] - len(names) / 2) <= 1


def test_no_second_step_goes_through_an_entity_of_the_other_half(suite: Suite, part: Part):
    halves = halves_of(part)
    for item in _of(suite, "new_two_hop"):
        other = {name for name, split in halves.items() if split != item.split}
        first, second = item.answer.partition(" Answer: ")[0][:-1].split(". ")
        # Where the second step is about one of the other half, its office holder may be: nobody is asked about those.
        assert not {name for name in other if name in first and name in second}


def test_no_skill_is_unknown(suite: Suite):
    assert {item.skill for item in suite.items} == {*RETENTION, "unchanged_of_changed", *LEARNING}
    assert suite.refusals == (UNKNOWN,)


def test_every_answer_passes_its_own_checks(suite: Suite):
    assert not [item for item in suite.items if not all(passes(item.answer, check) for check in item.checks)]


def test_choices_are_wrong_and_what_is_gone_is_not_the_answer(suite: Suite):
    for item in suite.items:
        assert item.answer not in item.choices
        assert len(set(item.choices)) == len(item.choices)
        assert UNKNOWN not in item.choices
        assert item.gone is None or not says(item.answer, item.gone)
    assert {len(item.choices) for item in suite.items} == {0, 3}
    assert {item.skill for item in suite.items if item.gone} == {"changed"}


@pytest.mark.parametrize("skill", [skill for skill in LEARNING if skill != "new_two_hop"])
def test_nearly_all_that_is_learned_in_one_step_has_choices(suite: Suite, skill: str):
    items = _of(suite, skill)
    assert sum(bool(item.choices) for item in items) >= 0.9 * len(items)
    assert not any(item.choices for item in suite.items if item.skill == "new_two_hop" or item.part == "retention")


@pytest.fixture(scope="module")
def told(world: World, parts: tuple[Part, Part]) -> dict[int, str]:
    """All that is written of a part, in lower case."""
    texts = {part.number: [document.text for document in write_documents(world, part, 12)] for part in parts}
    return {number: " ".join(written).lower() for number, written in texts.items()}


@pytest.mark.parametrize("policy", ["newest", "oldest", "most frequent", "least frequent"])
@pytest.mark.parametrize("skill", [skill for skill in LEARNING if skill != "new_two_hop"])
def test_no_choice_can_be_made_without_the_question(
    suite: Suite, told: dict[int, str], part: Part, skill: str, policy: str
):
    new = {name for names in part.names.values() for name in names}
    read = told[part.number]
    value: Callable[[str], float] = {
        "newest": lambda name: name in new,
        "oldest": lambda name: name not in new,
        "most frequent": lambda name: read.count(name.lower()),
        "least frequent": lambda name: -read.count(name.lower()),
    }[policy]
    right = [_right_by(value, item) for item in _of(suite, skill) if item.choices]
    # A quarter, and what chance allows where there are few: about 16 changes, and 20 offices, each asked twice.
    assert sum(right) / len(right) <= (0.30 if len(right) >= 100 else 0.40)


def _right_by(value: Callable[[str], float], item: Item) -> float:
    """How often the answer is the candidate with the highest value, where equals are drawn at random."""
    best = max(map(value, (item.answer, *item.choices)))
    among = [candidate for candidate in (item.answer, *item.choices) if value(candidate) == best]
    return (item.answer in among) / len(among)


def test_choices_are_as_new_as_the_answer_and_told_of_the_same_relation(suite: Suite, part: Part):
    new = {name for names in part.names.values() for name in names}
    told = {*part.facts, *(change.new for change in part.changes)}
    for item in (item for item in suite.items if item.choices):
        relation = (item.unit or "").partition(" of ")[0]
        others = [choice for choice in item.choices if choice != item.gone]
        assert {choice in new for choice in others} == {item.answer in new}
        side = "subject" if item.skill == "new_reverse" else "value"
        assert {*others, item.answer} <= {getattr(fact, side) for fact in told if fact.relation == relation}


def test_a_part_too_small_for_choices_has_none(world: World):
    part = build_part(world, CHOOSING, Size(8, 2, 2, 4), 2)
    items = [item for item in build_suite(world, part, 0.1).items if item.part == "learning"]
    without = {
        (item.unit or "").partition(" of ")[0] for item in items if not item.choices and "reverse" not in item.skill
    }
    # Two towns and two companies have two of these between them.
    assert {"county", "river", "makes"} <= without
    assert {len(item.choices) for item in items} == {0, 3}


def test_items_about_one_fact_share_its_unit(suite: Suite, part: Part):
    units = {
        skill: Counter(item.unit for item in _of(suite, skill)) for skill in ("changed", "new_reverse", "new_direct")
    }
    assert units["changed"] == {f"{change.new.relation} of {change.new.subject}": 2 for change in part.changes}
    assert set(units["new_reverse"].values()) == {2}
    assert units["new_direct"] == {f"{fact.relation} of {fact.subject}": 1 for fact in part.facts}
    assert {item.unit for item in _of(suite, "arithmetic")} == {None}
    assert len({item.unit for item in _of(suite, "new_two_hop")}) < len(_of(suite, "new_two_hop"))


def test_every_new_fact_is_asked_in_a_trained_and_in_another_wording(suite: Suite, part: Part):
    for skill, sort, times in (
        ("new_direct", "questions", 1),
        ("new_other_wording", "other", 1),
        ("new_reverse", "reverse", 2),
    ):
        prompts = {item.prompt: item.answer for item in _of(suite, skill)}
        facts = [fact for fact in part.facts if skill != "new_reverse" or fact.relation in ROLES]
        assert len(prompts) == len(facts) * times
        for fact in facts:
            asked = {ask(fact, wording) for wording in getattr(RELATIONS[fact.relation], sort)} & set(prompts)
            answer = fact.subject if skill == "new_reverse" else fact.value
            assert [prompts[prompt] for prompt in asked] == [answer] * times


def test_every_change_is_asked_with_the_old_value_as_gone_and_as_a_choice(suite: Suite, part: Part):
    items = {item.prompt: item for item in _of(suite, "changed")}
    assert len(items) == 2 * len(part.changes)
    for change, sort in product(part.changes, ("questions", "other")):
        asked = {ask(change.new, wording) for wording in getattr(RELATIONS[change.new.relation], sort)} & set(items)
        assert [(items[prompt].answer, items[prompt].gone) for prompt in asked] == [
            (change.new.value, change.old.value)
        ]
        assert all(items[prompt].choices[:1] in ((), (change.old.value,)) for prompt in asked)


def test_new_two_hops_are_true_after_the_part(suite: Suite, world: World, part: Part, true_after: Callable):
    said = {tell(fact, RELATIONS[fact.relation].statements[0]) for fact in true_after(world, part)}
    new = {name for names in part.names.values() for name in names}
    for item in _of(suite, "new_two_hop"):
        steps, _, answer = item.answer.partition(" Answer: ")
        first, second = steps[:-1].split(". ")
        assert {f"{first}.", f"{second}."} <= said
        assert answer.lower() in second.lower()
        assert any(name in item.prompt for name in new)


def _all_questions(fact: Fact) -> set[str]:
    relation = RELATIONS[fact.relation]
    sorts = (relation.questions, relation.other, relation.reverse, relation.reverse_other)
    return {ask(fact, wording) for wordings in sorts for wording in wordings}


def _about_the_changed(suite: Suite, part: Part, skills: set[str]) -> list[tuple[str, str]]:
    """Retention items that ask for something that the part changed, forwards or backwards, in one hop or two."""
    old = {change.old for change in part.changes}
    prompts = {prompt for fact in old for prompt in _all_questions(fact)}
    steps = {tell(fact, RELATIONS[fact.relation].statements[0]) for fact in old}
    return [
        (item.skill, item.prompt)
        for item in suite.items
        if item.part == "retention"
        and item.skill in skills
        and (any(prompt in item.prompt for prompt in prompts) or any(step in item.answer for step in steps))
    ]


@pytest.mark.parametrize("skill", [*RETENTION, "unchanged_of_changed"])
def test_what_is_kept_never_concerns_a_changed_fact(suite: Suite, part: Part, skill: str):
    assert _about_the_changed(suite, part, {skill}) == []


def test_what_is_still_true_of_changed_entities_is_asked(suite: Suite, world: World, part: Part, true_after: Callable):
    changed, after = {change.old.subject for change in part.changes}, true_after(world, part)
    still = {fact for fact in world.facts if fact.subject in changed and fact in after}
    items = {item.prompt: item.answer for item in _of(suite, "unchanged_of_changed")}
    assert len(items) == len(still)
    for fact in still:
        asked = {ask(fact, wording) for wording in RELATIONS[fact.relation].questions} & set(items)
        assert {items[prompt] for prompt in asked} == {fact.value}


def test_retention_of_dev_and_test_shares_no_prompt(suite: Suite):
    sides = [{i.prompt for i in suite.items if (i.part, i.split) == ("retention", split)} for split in ("dev", "test")]
    assert not sides[0] & sides[1]


def test_retention_items_are_the_same_for_every_part_but_for_what_changed(suites: dict[int, Suite]):
    kept = [{item for item in map(_key, suite.items) if item[0] in RETENTION} for suite in suites.values()]
    assert len(kept[0] & kept[1]) > 0.8 * len(kept[0])


def _key(item: Item) -> tuple[str, str, str]:
    return item.skill, item.split, item.prompt


def test_scale_multiplies_retention_alone(world: World, part: Part, suite: Suite):
    small = build_suite(world, part, 0.2)
    assert [i.prompt for i in small.items if i.part == "learning"] == [
        i.prompt for i in suite.items if i.part == "learning"
    ]
    assert Counter(item.split for item in _of(small, "arithmetic")) == {"dev": 8, "test": 8}


def test_the_fingerprint_follows_from_the_items(world: World, part: Part, suite: Suite):
    assert build_suite(world, part).fingerprint == suite.fingerprint
    assert build_suite(world, part, 0.5).fingerprint != suite.fingerprint
    assert embedded_suite(part).fingerprint == suite.fingerprint


def test_the_embedded_suite_is_that_of_the_choosing_part(suites: dict[int, Suite]):
    assert embedded_suite().fingerprint == suites[CHOOSING].fingerprint
    assert len({suite.fingerprint for suite in suites.values()}) == len(suites)


def test_the_card_also_asks_new_facts_with_a_document(world: World, part: Part):
    names = {subject.name for subject in part.subjects}
    texts = {name: d.text for d in write_documents(world, part, 1) for name in names if name in (d.title or "")}
    items = card_suite(world, part, texts, 0.1).items
    with_document = [item for item in items if item.skill == "with_document"]
    assert len(with_document) > 100
    assert len({item.id for item in items}) == len(items)
    assert {item.split for item in with_document} == {"dev", "test"}
    for item in with_document:
        text, _, question = item.prompt.rpartition("\n\n")
        assert text in texts.values()
        assert question.endswith("?")
        assert item.answer.lower() in text.lower()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("almanac") / "choosing"
    counts = write_files(made, CHOOSING, per_entity=2, arrivals=Size(10, 2, 2, 3), changes=1)
    assert counts == {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in made.iterdir()}
    return made


@pytest.fixture(scope="module")
def small(world: World) -> Part:
    return build_part(world, CHOOSING, Size(10, 2, 2, 3), 1)


def test_written_documents_are_read_as_they_were_made(folder: Path, world: World, small: Part, tmp_path: Path):
    read = read_corpus(str(folder / "documents.jsonl"), cache_dir=tmp_path)
    made = write_documents(world, small, 2)
    assert [(d.id, d.title, d.date, d.text) for d in read] == [(d.id, d.title, d.date, d.text) for d in made]


@pytest.mark.parametrize("name", ["held_out", "general"])
def test_the_other_texts_can_be_read_as_a_corpus(folder: Path, name: str, tmp_path: Path):
    read = read_corpus(str(folder / f"{name}.jsonl"), cache_dir=tmp_path)
    assert len(read) == len((folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())


def test_written_facts_are_those_of_the_part(folder: Path, small: Part):
    rows = [json.loads(line) for line in (folder / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Fact(**row) for row in rows if "old" not in row] == list(small.facts)
    assert [Fact(**row["new"]) for row in rows if "old" in row] == [change.new for change in small.changes]


def test_a_written_suite_has_every_item_and_says_what_a_refusal_is(folder: Path, world: World, small: Part):
    header, *rows = [json.loads(line) for line in (folder / "suite.jsonl").read_text(encoding="utf-8").splitlines()]
    assert header["suite"]["name"] == "almanac"
    assert header["suite"]["refusals"] == [UNKNOWN]
    assert [row["id"] for row in rows] == [item.id for item in build_suite(world, small).items]


def test_a_written_suite_is_loaded_as_it_was_made(folder: Path, world: World, small: Part):
    loaded, made = load_suite(folder / "suite.jsonl"), build_suite(world, small)
    assert loaded.fingerprint == made.fingerprint
    assert (loaded.name, loaded.version, loaded.refusals) == (made.name, made.version, made.refusals)
    assert loaded.version == VERSION == 3


def test_general_texts_are_about_strangers_and_nobody(world: World, names_in: Callable):
    texts = general_texts(world, 10)
    assert len(texts) == len(set(texts)) == 10
    assert sum(bool(names_in(text)) for text in texts) == 5
