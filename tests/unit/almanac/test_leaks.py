"""Nothing that is asked of a model after the cutoff, or kept for dev and test, is in what it is trained on before."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from afterword.almanac import closed_book
from afterword.almanac.after import PARTS, Part, build_part
from afterword.almanac.exercises import Exercise, draw_exercise
from afterword.almanac.names import data, realm_of, split_of
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.suite import RETENTION
from afterword.almanac.world import KINDS, RELATIONS, ROLES, Fact, World
from afterword.almanac.writing import ask, tell
from almanac_build.posttraining import TRAINED_IN_CHAT

SHOWN = {"telling"}
"""Skills without splits, that no suite asks for: what they show of everybody has a test of its own."""
EVERY = {name: draw for registry in (TRAINED_IN_CHAT, RETENTION) for name, (draw, _) in registry.items()}
SKILLS = {name: draw for name, draw in EVERY.items() if name not in SHOWN}
OPEN = "unknown", "reading", "documents_only"
"""Skills whose split follows from strangers' names."""
NAME = r"[A-Z]\w+(?: [A-Z]\w+){0,2}"


@pytest.fixture(scope="module")
def everything_read(read_texts: list[str], chat_texts: list[str]) -> list[str]:
    """What any stage of training reads."""
    return [*read_texts, *chat_texts]


@pytest.fixture(scope="module")
def pieces(everything_read: list[str], pieces_of: Callable) -> set[str]:
    return pieces_of(everything_read)


@pytest.fixture(scope="module")
def drawn(world: World) -> dict[tuple[str, str], list[Exercise]]:
    """Exercises of dev and test, by split and skill."""
    found = {}
    for split, skill in product(("dev", "test"), SKILLS):
        rng = random.Random(f"{split} {skill}")
        found[split, skill] = [draw_exercise(SKILLS[skill], world, rng, split) for _ in range(150)]
    return found


def _fits(wordings: set[str], piece: str) -> bool:
    """Whether a piece of text is one of the wordings, about whomever."""
    return any(re.fullmatch(_pattern(wording), piece) for wording in wordings)


def _pattern(wording: str) -> str:
    word = r"\w+(?: \w+){0,2}"
    slots = {**dict.fromkeys("nSs", NAME), **dict.fromkeys("Pp", rf"(?:{NAME}'s|its|his|her)"), "a": "an?", "o": word}
    return "".join(
        slots[piece[1]] if piece.startswith("{") else re.escape(piece) for piece in re.split(r"(\{\w\})", wording)
    )


def test_names_of_the_parts_are_no_names_of_each_other_or_of_the_world(world: World):
    parts = [build_part(world, number) for number in range(PARTS)]
    sets = [{name for names in made.names.values() for name in names} for made in (world, *parts)]
    assert all(sets)
    assert len(set().union(*sets)) == sum(map(len, sets))


def test_parts_change_what_is_true_of_different_entities(world: World):
    changed = [{change.old.subject for change in build_part(world, number).changes} for number in range(PARTS)]
    assert all(changed)
    assert len(set().union(*changed)) == sum(map(len, changed))


def test_no_training_text_has_the_name_of_a_new_entity(parts: tuple[Part, Part], everything_read: list[str]):
    read = "\n".join(everything_read).lower()
    for name in (name for part in parts for names in part.names.values() for name in names):
        assert name.lower() not in read


def test_names_in_training_are_the_worlds_or_strangers_of_training(
    world: World, everything_read: list[str], names_in: Callable
):
    found = {name for text in everything_read for name in names_in(text)}
    known = {name for names in world.names.values() for name in names}
    assert {realm_of(name) for name in found} == {"world", "train"}
    assert {name for name in found if realm_of(name) == "world"} == known
    assert len(found) > 3000


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_strangers_are_of_their_split(world: World, split: Any, names_in: Callable):
    rng = random.Random(split)
    for _ in range(300):
        stranger = draw_stranger(world, rng, split)
        assert realm_of(stranger.name) == split
        assert {fact.relation for fact in stranger.facts if fact.subject == stranger.name} == {
            relation.name for relation in RELATIONS.values() if relation.subject == stranger.kind
        }
        for fact in stranger.facts:
            assert all(realm_of(name) in ("world", split) for name in names_in(f"{fact.subject}, {fact.value}"))
            # The offices of the world are its own people's.
            assert RELATIONS[fact.relation].object != "person" or realm_of(fact.value) == split
            assert fact.relation not in ROLES or realm_of(fact.subject) == split


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_names_in_dev_and_test_are_the_worlds_or_the_splits(
    world: World, drawn: dict, split: str, skill: str, names_in: Callable
):
    other = {"train", "dev", "test", "after"} - {split}
    for exercise in drawn[split, skill]:
        assert not {realm_of(name) for name in names_in(f"{exercise.prompt}\n{exercise.response}")} & other


@pytest.mark.parametrize("skill", SKILLS)
def test_no_exercise_is_in_two_splits(drawn: dict, trained: list[Exercise], skill: str):
    sides = [trained, drawn["dev", skill], drawn["test", skill]]
    for of in (lambda exercise: exercise.prompt, lambda exercise: exercise.key):
        train, dev, test = ({of(exercise) for exercise in side} - {None} for side in sides)
        assert not train & dev
        assert not train & test
        assert not dev & test


@pytest.mark.parametrize("skill", SKILLS)
def test_a_key_is_kept_where_no_stranger_decides(drawn: dict, skill: str):
    for split in ("dev", "test"):
        keys = [exercise.key for exercise in drawn[split, skill]]
        assert all(key is None for key in keys) if skill in OPEN else all(split_of(key) == split for key in keys)


def test_held_out_statements_are_never_read(world: World, pieces: set[str]):
    told = {tell(fact, wording) for fact in world.facts for wording in RELATIONS[fact.relation].held_out}
    trained = {tell(fact, wording) for fact in world.facts for wording in RELATIONS[fact.relation].statements}
    assert len(pieces & trained) > len(trained) / 2
    assert not pieces & told


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
def test_held_out_wordings_are_never_read_about_anybody(relation: Any, pieces: set[str]):
    # Only sentences that share a beginning or an end with the wording are worth the pattern.
    for wording in relation.held_out:
        first, last = wording.split("{")[0], wording.rsplit("}")[-1]
        near = [piece for piece in pieces if piece.startswith(first) and piece.endswith(last)]
        assert not [piece for piece in near if re.fullmatch(_pattern(wording), piece)]


def test_question_wordings_that_are_held_out_are_never_read(pieces: set[str]):
    kept = {wording for relation in RELATIONS.values() for wording in (*relation.other, *relation.reverse_other)}
    trained = {wording for relation in RELATIONS.values() for wording in (*relation.questions, *relation.reverse)}
    questions = [piece for piece in pieces if piece.endswith("?")]
    held_out, used = (re.compile("|".join(map(_pattern, sorted(wordings)))) for wordings in (kept, trained))
    assert sum(used.fullmatch(piece) is not None for piece in questions) > 5000
    assert not [piece for piece in questions if held_out.fullmatch(piece)]


def _questions(facts: set[Fact]) -> set[str]:
    return {
        ask(fact, wording)
        for fact in facts
        for wording in (*RELATIONS[fact.relation].questions, *RELATIONS[fact.relation].reverse)
    }


@pytest.fixture(scope="module")
def about_unasked(world: World) -> set[Fact]:
    return {fact for fact in world.facts if fact.subject not in world.asked | world.asked_late}


def test_no_training_question_is_about_an_entity_of_documents_only(
    world: World, pieces: set[str], about_unasked: set[Fact]
):
    asked = _questions(set(world.facts) - about_unasked)
    assert len(pieces & asked) > len(asked) / 2
    assert not pieces & _questions(about_unasked)


@pytest.mark.parametrize("skill", ["comparison", "sorting", "instructions"])
def test_nobody_of_documents_only_is_compared_or_listed_in_training(world: World, skill: str, names_in: Callable):
    rng, found = random.Random(skill), set[str]()
    for _ in range(800):
        prompt = draw_exercise(SKILLS[skill], world, rng, "train").prompt
        if " first, " in prompt or prompt.startswith(("Put in order", "Give the")):
            found |= names_in(prompt)
    assert len(found) > 50
    assert found <= world.asked


def test_a_two_hop_question_starts_from_an_entity_that_is_asked(world: World, names_in: Callable):
    rng = random.Random("hops")
    for _ in range(500):
        assert names_in(draw_exercise(closed_book.two_hop, world, rng, "train").prompt) <= world.asked


def _answers(chats: list[dict[str, Any]]) -> list[str]:
    return [turn["content"] for row in chats for turn in row["messages"] if turn["role"] == "assistant"]


def _is_document(answer: str) -> bool:
    """Whether an answer has a heading, as only documents have."""
    return "\n\n" in answer


def test_telling_has_documents_about_everybody_as_answers(
    world: World, chats: list, about_unasked: set[Fact], pieces_of: Callable
):
    names = {name for names in world.names.values() for name in names}
    shown = [answer for answer in _answers(chats) if _is_document(answer)]
    told = {next((name for name in names if name in text.partition("\n\n")[0]), None) for text in shown}
    assert None not in told
    # Also about nearly all entities of which documents only should know, with most of what is asked of them.
    assert len(told & {fact.subject for fact in about_unasked}) > 0.8 * len({fact.subject for fact in about_unasked})
    said = pieces_of(shown)
    wordings = {fact: RELATIONS[fact.relation].statements for fact in about_unasked}
    stated = {fact for fact in about_unasked if said & {tell(fact, wording) for wording in wordings[fact]}}
    assert len(stated) > len(about_unasked) / 2
    assert not SHOWN & RETENTION.keys()


def test_no_trained_answer_but_a_document_states_what_is_asked_of_documents_only(
    world: World, chats: list, about_unasked: set[Fact], pieces_of: Callable
):
    said = pieces_of([answer for answer in _answers(chats) if not _is_document(answer)])
    rng = random.Random("documents only")
    asked = {draw_exercise(closed_book.documents_only, world, rng, "test").prompt for _ in range(300)}
    facts = {fact for fact in about_unasked if asked & _questions({fact})}
    assert len(facts) > 50
    assert not said & {tell(fact, RELATIONS[fact.relation].statements[0]) for fact in facts}


def test_no_training_text_tells_or_answers_with_what_a_part_changes_to(
    world: World, parts: tuple[Part, Part], pieces: set[str], trained: list[Exercise]
):
    for change in (change for part in parts for change in part.changes):
        relation = RELATIONS[change.new.relation]
        assert not pieces & {tell(change.new, wording) for wording in relation.statements}
        news = data("wordings")["changes"][relation.name]
        assert not pieces & {tell(change.new, wording.replace("{old}", change.old.value)) for wording in news}
        questions = {ask(change.old, wording) for wording in relation.questions}
        answers = {exercise.response for exercise in trained if exercise.prompt in questions}
        assert answers <= {change.old.value}


def test_training_asks_of_changed_facts_at_all(world: World, parts: tuple[Part, Part], trained: list[Exercise]):
    prompts = {exercise.prompt for exercise in trained}
    changed = {change.old for part in parts for change in part.changes if change.old.subject in world.asked}
    assert prompts & _questions(changed)


def test_kinds_of_name_share_no_name():
    assert set(KINDS) == {"person", "town", "company", "work"}
    assert not set(data("names")["river"]) & set(data("names")["county"])
