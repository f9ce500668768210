"""What happens after the cutoff: new entities, changed facts, and the documents that tell of both.

The one rule: a part's number decides, by hash, which names may arrive and which old entities may change in it.
So a part that was used for choosing shares neither with the one that results are reported on.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from afterword.almanac.names import bucket, data, draw_name
from afterword.almanac.world import CUTOFF, KINDS, RELATIONS, ROLES, Fact, Size, World, draw_facts, draw_value
from afterword.almanac.writing import Subject, tell, write_document
from afterword.errors import ConfigError
from afterword.types import Document

PARTS = 4
CHOOSING, REPORTING = 0, 3
"""The part that settings are chosen on, and the one that figures are reported on. 1 and 2 were reported on before."""
YEARS = (CUTOFF, CUTOFF + 1)
"""When the documents were written."""
ARRIVALS = Size(16, 4, 4, 8)
_VAIN_DRAWS = 20_000
"""So many names in a row that were there already: there are no others."""
CHANGING = ("mayor", "director", "lives_in", "works_for")


@dataclass(frozen=True, slots=True)
class Change:
    """A fact that is no longer true, and the one that took its place."""

    old: Fact
    new: Fact


@dataclass(frozen=True)
class Part:
    """What arrived and what changed."""

    number: int
    names: Mapping[str, tuple[str, ...]]
    """New entities, by kind."""
    facts: tuple[Fact, ...]
    """Of new entities."""
    changes: tuple[Change, ...]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The new entities with everything that is true of them."""
        new = (*self.facts, *(change.new for change in self.changes))
        return tuple(
            Subject(name, kind, tuple(fact for fact in new if name in (fact.subject, *_holder(fact))))
            for kind in KINDS
            for name in self.names[kind]
        )


def build_part(world: World, number: int, arrivals: Size = ARRIVALS, changes: int = 4) -> Part:
    """One of the parts after the cutoff, with `changes` of every changing relation, or of all that may change in it.

    ConfigError where there are too few names, or too few new people for the offices that change hands.

    >>> from afterword.almanac.world import TINY, build_world
    >>> world = build_world(1, TINY)
    >>> first, second = (build_part(world, number, Size(4, 1, 1, 1), 0) for number in (0, 1))
    >>> set(first.names["person"]) & set(second.names["person"])
    set()
    """
    rng = random.Random(f"part {number}")
    names = {kind: _arrivals(kind, number, arrivals.of(kind), rng) for kind in KINDS}
    people = list(rng.sample(names["person"], len(names["person"])))
    # Both the old and the new are linked to; the offices of new entities go to new people.
    objects = {kind: (*world.names[kind], *names[kind]) for kind in KINDS} | {"person": names["person"]}
    facts = tuple(draw_facts(names, objects, rng, CUTOFF))
    drawn = [
        change for relation in CHANGING for change in _changes(world, relation, number, changes, facts, people, rng)
    ]
    return Part(number, names, facts, tuple(drawn))


def write_documents(world: World, part: Part, per_entity: int) -> list[Document]:
    """So many documents about every new entity and every changed one, in random order."""
    rng = random.Random(f"documents {part.number}")
    written: list[Document] = []
    for subject in part.subjects:
        written += [write_document(subject, rng, YEARS) for _ in range(per_entity)]
    for change in part.changes:
        written += [_news(world, part, change, rng) for _ in range(per_entity)]
    rng.shuffle(written)
    return [replace(document, id=f"part{part.number}-{i:04d}") for i, document in enumerate(written)]


def held_out_documents(part: Part) -> list[Document]:
    """Every new and changed fact in the wordings that are never trained, a document for each entity.

    A change of office stands with the person who is new in it.
    """
    moved = [change.new for change in part.changes if change.new.relation not in ROLES]
    changed = [Subject(fact.subject, RELATIONS[fact.relation].subject, (fact,)) for fact in moved]
    return [
        Document(f"held-out-{part.number}-{i:03d}", _retold(subject), subject.name, source="almanac")
        for i, subject in enumerate((*part.subjects, *changed))
    ]


def current_facts(world: World, part: Part, name: str) -> tuple[Fact, ...]:
    """What is true of an old entity after the part's changes, offices that it holds included."""
    changed = {(change.old.subject, change.old.relation): change.new for change in part.changes}
    now = (changed.get((fact.subject, fact.relation), fact) for fact in world.about(name))
    return tuple(fact for fact in now if name in (fact.subject, *_holder(fact)))


def _holder(fact: Fact) -> tuple[str, ...]:
    return (fact.value,) if fact.relation in ROLES else ()


def _arrivals(kind: str, number: int, count: int, rng: random.Random) -> tuple[str, ...]:
    found, since = dict[str, None](), 0
    while len(found) < count:
        if since > _VAIN_DRAWS:
            raise ConfigError(
                f"people: {count} names of the kind {kind} are wanted, and there are {len(found)}. Ask for fewer."
            )
        name = draw_name(kind, "after", rng)
        since += 1
        if _belongs(name, number) and name not in found:
            found[name], since = None, 0
    return tuple(found)


def _belongs(name: str, number: int) -> bool:
    return bucket(f"part {name}", PARTS) == number


def _changes(
    world: World, relation: str, number: int, count: int, facts: tuple[Fact, ...], people: list[str], rng: random.Random
) -> Iterator[Change]:
    """Changes of one relation. New offices go to new people who hold none of the kind yet."""
    holders = {fact.value for fact in facts if fact.relation == relation}
    free = [name for name in people if name not in holders]
    subjects = [name for name in world.names[RELATIONS[relation].subject] if _belongs(name, number)]
    count = min(count, len(subjects))
    if relation in ROLES and count > len(free):
        few = f"and {len(free)} of the {len(people)} new people hold no such office yet"
        raise ConfigError(
            f"changes: {count} changes of {relation} are wanted, {few}. Ask for fewer, or for more people."
        )
    for name in rng.sample(subjects, count):
        old = Fact(name, relation, world.value(name, relation))
        yield Change(old, replace(old, value=free.pop() if relation in ROLES else _other_value(world, old, rng)))


def _other_value(world: World, fact: Fact, rng: random.Random) -> str:
    while (value := draw_value(RELATIONS[fact.relation], world.names, rng, CUTOFF)) == fact.value:
        pass
    return value


def _news(world: World, part: Part, change: Change, rng: random.Random) -> Document:
    """A document about a changed entity that tells the change itself, and what else is true of it."""
    name, relation = change.new.subject, change.new.relation
    others = [fact for fact in current_facts(world, part, name) if fact != change.new]
    facts = (change.new, *rng.sample(others, min(len(others), 3)))
    document = write_document(Subject(name, RELATIONS[relation].subject, facts), rng, YEARS)
    wordings = data("wordings")["changes"][relation]
    told = [tell(change.new, wording.replace("{old}", change.old.value)) for wording in wordings]
    title, _, body = document.text.partition("\n\n")
    return replace(document, text=f"{title}\n\n{' '.join(told)}\n\n{body}")


def _retold(subject: Subject) -> str:
    return " ".join(tell(fact, wording) for fact in subject.facts for wording in RELATIONS[fact.relation].held_out)
