"""The fictional world: who lives in it, what is true of them, and what changes after the cutoff.

Everything follows from a seed and a size. Half of the entities are `asked`: questions about them are in the
training of the embedded models from the start, a quarter in post-training. The others are known from documents alone,
which post-training also shows as answers, when it is told to tell of somebody.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import TypeAdapter

from afterword.almanac.names import Realm, data, draw_name

KINDS = ("person", "town", "company", "work")
CUTOFF = 1930
"""The first year that documents before the cutoff never mention."""
_FIRST_YEAR = {"person": 1840, "town": 1100, "company": 1700, "work": 1800}


@dataclass(frozen=True, slots=True)
class Size:
    """How many of each kind a world has, and how many arrive and change after the cutoff."""

    people: int = 96
    towns: int = 24
    companies: int = 24
    works: int = 24

    def of(self, kind: str) -> int:
        """The number of entities of a kind."""
        return {"person": self.people, "town": self.towns, "company": self.companies, "work": self.works}[kind]


TINY, STANDARD = Size(12, 6, 6, 6), Size()


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is true: the mayor (relation) of Aldermoor (subject) is Vera Holcroft (value)."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of fact, and every wording of it (wordings.yaml)."""

    name: str
    subject: str
    object: str
    noun: str
    statements: tuple[str, ...]
    held_out: tuple[str, ...]
    questions: tuple[str, ...]
    other: tuple[str, ...]
    reverse: tuple[str, ...] = ()
    reverse_other: tuple[str, ...] = ()


RELATIONS: Mapping[str, Relation] = TypeAdapter(dict[str, Relation]).validate_python(
    {name: {"name": name, **row} for name, row in data("wordings")["relations"].items()}
)
ROLES = tuple(name for name, relation in RELATIONS.items() if relation.reverse)
"""Relations whose value is a person who bears it only once, so that they can be asked backwards."""


@dataclass(frozen=True)
class World:
    """Entities by kind, and every fact about them."""

    names: Mapping[str, tuple[str, ...]]
    facts: tuple[Fact, ...]
    asked: frozenset[str]
    """Entities that question-answer training is about from the start."""

    def value(self, subject: str, relation: str) -> str:
        """What is true. KeyError if nothing is."""
        return self._values[subject, relation]

    def about(self, name: str) -> tuple[Fact, ...]:
        """The facts whose subject this is, and the offices that it holds."""
        return tuple(self._about[name])

    @cached_property
    def asked_late(self) -> frozenset[str]:
        """Entities that pre-training knows from documents alone, and that post-training asks about: half of the rest.

        They teach that what was read can be asked for. No question is ever about the others: what is known of them is
        from documents, those included that post-training has written (`telling` of almanac_build/posttraining.py).
        """
        rest = ([name for name in names if name not in self.asked] for names in self.names.values())
        return frozenset(name for names in rest for name in names[: len(names) // 2])

    @cached_property
    def _values(self) -> Mapping[tuple[str, str], str]:
        return {(fact.subject, fact.relation): fact.value for fact in self.facts}

    @cached_property
    def _about(self) -> Mapping[str, list[Fact]]:
        index: dict[str, list[Fact]] = {}
        for fact in self.facts:
            for name in (fact.subject, fact.value) if fact.relation in ROLES else (fact.subject,):
                index.setdefault(name, []).append(fact)
        return index


def build_world(seed: int = 0, size: Size = STANDARD, realm: Realm = "world") -> World:
    """The world before the cutoff.

    >>> build_world(1, TINY).facts == build_world(1, TINY).facts
    True
    """
    rng = random.Random(f"world {seed}")
    names = {kind: draw_names(kind, realm, size.of(kind), rng) for kind in KINDS}
    facts = tuple(draw_facts(names, names, rng, CUTOFF))
    asked = frozenset(name for kind in KINDS for name in names[kind][: len(names[kind]) // 2])
    return World(names, facts, asked)


def draw_names(kind: str, realm: Realm, count: int, rng: random.Random) -> tuple[str, ...]:
    """Different names of one kind."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw_name(kind, realm, rng)] = None
    return tuple(found)


def draw_facts(
    subjects: Mapping[str, tuple[str, ...]], objects: Mapping[str, tuple[str, ...]], rng: random.Random, before: int
) -> Iterator[Fact]:
    """One value for each relation of every subject. Offices go to different people."""
    for relation in RELATIONS.values():
        named = subjects.get(relation.subject, ())
        if relation.name in ROLES:
            values = rng.sample(objects["person"], len(named))
        else:
            values = [draw_value(relation, objects, rng, before) for _ in named]
        yield from (Fact(name, relation.name, value) for name, value in zip(named, values, strict=True))


def draw_value(relation: Relation, objects: Mapping[str, tuple[str, ...]], rng: random.Random, before: int) -> str:
    """A random value: an entity, a year that is over, or a word of the relation's own list."""
    if relation.object == "year":
        # Whoever works and writes is grown up.
        last = before - 20 if relation.subject == "person" else before - 1
        return str(rng.randint(_FIRST_YEAR[relation.subject], last))
    return rng.choice(objects[relation.object] if relation.object in KINDS else data("names")[relation.object])
