"""The world, its parts and many draws, made once; and readers of texts that share no code with the writers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import pytest

from afterword.almanac.after import CHOOSING, REPORTING, Part, build_part
from afterword.almanac.exercises import Exercise
from afterword.almanac.general import conversations, preferences
from afterword.almanac.names import data
from afterword.almanac.world import RELATIONS, Fact, World, build_world
from almanac_build.posttraining import draw_trained
from almanac_build.pretraining import texts
from almanac_build.tokenizer import train_tokenizer

WORDS = data("names")


def _any(*keys: str) -> str:
    return f"(?:{'|'.join(word for key in keys for word in WORDS[key])})"


KIND_PATTERNS = {
    "person": rf"{_any('female', 'male')} {_any('surname_starts')}{_any('surname_ends')}",
    "town": _any("town_starts") + _any("town_ends"),
    "company": rf"{_any('company_starts')}{_any('company_middles')} {_any('company_ends')}",
    "work": rf"The {_any('work_adjectives')} {_any('work_nouns')}",
}
NAME = r"[A-Z]\w+(?: [A-Z]\w+){0,2}"
"""Cheaper than the patterns of the kinds; what it finds is looked at again."""
SLOTS = {
    "S": rf"(?P<n>{NAME}|She|He|The (?:town|company|work))",
    "s": rf"(?P<n>{NAME}|she|he|the (?:town|company|work))",
    "P": rf"(?:(?P<n>{NAME})'s|(?P<own>Her|His|The town's|The company's|The work's))",
    "p": rf"(?:(?P<n>{NAME})'s|(?P<own>her|his|its))",
    "n": rf"(?P<n>{NAME})",
    "a": r"an?",
}


@dataclass(frozen=True)
class Said:
    """What a sentence says: of the named subject, or where that is None, of the one that a pronoun stands for."""

    subject: str | None
    relation: str
    value: str
    wording: str
    pronouns: tuple[str, ...]


def pattern_of(wording: str, value: str) -> re.Pattern[str]:
    """A wording as a pattern of whole sentences, with groups n, own and o; a repeated group must repeat itself."""
    pattern, seen = "", set[str]()
    for piece in re.split(r"(\{\w\})", wording):
        part = {**SLOTS, "o": f"(?P<o>{value})"}[piece[1:-1]] if piece.startswith("{") else re.escape(piece)
        for group in ("n", "own", "o"):
            part = part.replace(f"(?P<{group}>", f"(?P<{group}{len(seen)}>")
        seen.add(f"{len(seen)}{piece}")
        pattern += part
    return re.compile(pattern)


def value_pattern(relation: str) -> str:
    """What may be the value of a relation, with the capital of a sentence's first word."""
    kind = RELATIONS[relation].object
    if kind == "year":
        return r"\d{4}"
    return KIND_PATTERNS[kind] if kind in KIND_PATTERNS else f"(?i:{_any(kind)})"


def kind_of(name: str) -> str | None:
    """The kind of what may bear this name."""
    return next((kind for kind, pattern in KIND_PATTERNS.items() if re.fullmatch(pattern, name)), None)


@cache
def _statements() -> list[tuple[str, str, re.Pattern[str]]]:
    rows = [(name, wording) for name, relation in RELATIONS.items() for wording in relation.statements]
    return [(name, wording, pattern_of(wording, value_pattern(name))) for name, wording in rows]


@cache
def _read(sentence: str) -> tuple[Said, ...]:
    return tuple(_readings(sentence))


def _readings(sentence: str) -> Iterator[Said]:
    for relation, wording, pattern in _statements():
        if not (match := pattern.fullmatch(sentence)):
            continue
        found = {key: text for key, text in match.groupdict().items() if text}
        value = next(text for key, text in found.items() if re.fullmatch(r"o\d*", key))
        given = [text for key, text in found.items() if re.fullmatch(r"n\d*", key)]
        names = {text for text in given if kind_of(text)}
        others = [text for text in given if not kind_of(text)]
        pronouns = (*others, *(text for key, text in found.items() if key.startswith("own")))
        kind = RELATIONS[relation].subject
        if len(names) < 2 and all(kind_of(name) == kind for name in names):
            if RELATIONS[relation].object not in KIND_PATTERNS:
                value = value if value in WORDS.get(RELATIONS[relation].object, (value,)) else value.lower()
                known = WORDS.get(RELATIONS[relation].object, (value,))
                value = next(word for word in known if word.lower() == value.lower())
            yield Said(next(iter(names), None), relation, value, wording, pronouns)


@pytest.fixture(scope="session")
def statements_in() -> Callable[[str], tuple[Said, ...]]:
    """What a sentence says, in every way that it can be understood by the statements of wordings.yaml."""
    return _read


@pytest.fixture(scope="session")
def names_in() -> Callable[[str], set[str]]:
    """Every name in a text that the lists of names.yaml can make, in any case, written as a name is."""
    pattern = re.compile(rf"\b(?:{'|'.join(KIND_PATTERNS.values())})\b", re.IGNORECASE)
    counties = set(WORDS["county"])  # Eastmarch is one, and might be a town.
    return lambda text: {" ".join(map(str.capitalize, name.split())) for name in pattern.findall(text)} - counties


@pytest.fixture(scope="session")
def world() -> World:
    return build_world()


@pytest.fixture(scope="session", params=[CHOOSING, REPORTING], ids=["choosing", "reporting"])
def part(request: pytest.FixtureRequest, world: World) -> Part:
    return build_part(world, request.param)


@pytest.fixture(scope="session")
def parts(world: World) -> tuple[Part, Part]:
    return build_part(world, CHOOSING), build_part(world, REPORTING)


@pytest.fixture(scope="session")
def full() -> Any:
    """The tokenizer of the embedded models, made again."""
    return train_tokenizer(0)


@pytest.fixture(scope="session")
def read_texts(world: World) -> list[str]:
    """Texts as pre-training reads them."""
    return list(islice(texts(world, random.Random("tests")), 3000))


@pytest.fixture(scope="session")
def chats(world: World) -> list[dict[str, Any]]:
    return list(islice(conversations(world, 0, draw_trained), 5000))


@pytest.fixture(scope="session")
def preferred(world: World) -> list[dict[str, Any]]:
    return list(islice(preferences(world, 0, draw_trained), 2000))


@pytest.fixture(scope="session")
def chat_texts(chats: list[dict[str, Any]], preferred: list[dict[str, Any]]) -> list[str]:
    """Every turn of conversations and preferences."""
    rows = [row["messages"] for row in chats]
    rows += [row[side] for row in preferred for side in ("prompt", "chosen", "rejected")]
    return [turn["content"] for turns in rows for turn in turns]


@pytest.fixture(scope="session")
def trained(world: World) -> list[Exercise]:
    """Exercises as training draws them."""
    rng = random.Random("trained")
    return [draw_trained(world, rng) for _ in range(20_000)]


@pytest.fixture(scope="session")
def pieces_of() -> Callable[[list[str]], set[str]]:
    """Different sentences and lines of texts."""
    return lambda many: {piece for text in many for piece in re.split(r"(?<=[.?!:])\s+|\n+", text)}


@pytest.fixture(scope="session")
def true_after() -> Callable[[World, Part], set[Fact]]:
    """Everything that is true after a part."""

    def facts(world: World, part: Part) -> set[Fact]:
        values = {(fact.subject, fact.relation): fact.value for fact in (*world.facts, *part.facts)}
        values |= {(change.new.subject, change.new.relation): change.new.value for change in part.changes}
        return {Fact(subject, relation, value) for (subject, relation), value in values.items()}

    return facts
