"""The Almanac suite: what was learned of a part after the cutoff, and what was kept of everything before it."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from afterword.almanac import closed_book, instructions, reading, reasoning
from afterword.almanac.after import Part, current_facts
from afterword.almanac.choices import forward_choices, reverse_choices
from afterword.almanac.exercises import UNKNOWN, Draw, Exercise, draw_exercise
from afterword.almanac.general import general_texts
from afterword.almanac.names import Split, bucket
from afterword.almanac.world import RELATIONS, Fact, World
from afterword.almanac.writing import ask, tell
from afterword.evaluation.suites import Item, Suite

VERSION = 3
"""1: alternatives from everybody, so that a new name was the answer; checks that let more beside the answer pass.
2: one fact asked on dev and on test."""
SPLITS: tuple[Split, ...] = ("dev", "test")
RETENTION: dict[str, tuple[Draw, int]] = {
    "direct": (closed_book.direct, 50),
    "other_wording": (closed_book.other_wording, 50),
    "reverse": (closed_book.reverse, 7),
    "two_hop": (closed_book.two_hop, 40),
    "documents_only": (closed_book.documents_only, 50),
    "unknown": (closed_book.unknown, 40),
    "reading": (reading.reading, 40),
    "instructions": (instructions.instructions, 60),
    "arithmetic": (reasoning.arithmetic, 40),
    "comparison": (reasoning.comparison, 30),
    "sorting": (reasoning.sorting, 30),
    "lists": (reasoning.lists, 40),
}
"""Skills that the chat model has before anything is learned, and how many items of each a split holds."""


def build_suite(world: World, part: Part, scale: float = 1.0) -> Suite:
    """Items of both splits, which share no entity of the part. `scale` multiplies the numbers of retention items."""
    items = [*_learning(world, part), *_retention(world, part, scale)]
    return Suite(tuple(items), (UNKNOWN,), tuple(general_texts(world)), name="almanac", version=VERSION)


def halves_of(part: Part) -> dict[str, Split]:
    """The split that questions about an entity of the part are in: one half of the new ones of every kind, and of those
    that changed in the same way, are asked about on dev, the other half on test.

    Where their number is odd, the one left over goes to either.
    """
    alike = [*part.names.values(), *_changed_alike(part)]
    ranked = (sorted(names, key=lambda name: bucket(f"half {name}", 2**32)) for names in alike)
    return {name: SPLITS[(i + len(names)) % 2] for names in ranked for i, name in enumerate(names)}


def _changed_alike(part: Part) -> Iterator[list[str]]:
    """The changed entities, each once, by the first of their relations that changed."""
    first: dict[str, str] = {}
    for change in part.changes:
        first.setdefault(change.new.subject, change.new.relation)
    for relation in dict.fromkeys(first.values()):
        yield [name for name in first if first[name] == relation]


def _learning(world: World, part: Part) -> Iterator[Item]:
    rng, everyone, halves = random.Random(f"learning {part.number}"), _everyone(world, part), halves_of(part)
    forward, backward = forward_choices(part), reverse_choices(part)
    for fact in part.facts:
        relation, half = RELATIONS[fact.relation], halves[fact.subject]
        for skill, wordings in (("new_direct", relation.questions), ("new_other_wording", relation.other)):
            asked = closed_book.question(everyone, fact, rng.choice(wordings), rng)
            yield replace(item_of("learning", skill, asked, half), choices=forward.get(fact, ()))
        # Of these and of changes there are few, so that each is asked twice.
        for wording in rng.sample(relation.reverse, 2) if relation.reverse else ():
            asked = closed_book.reverse_question(everyone, fact, wording, rng)
            yield replace(item_of("learning", "new_reverse", asked, half), choices=backward.get(fact, ()))
    for change in part.changes:
        relation, half = RELATIONS[change.new.relation], halves[change.new.subject]
        for wordings in (relation.questions, relation.other):
            asked = closed_book.question(everyone, change.new, rng.choice(wordings), rng)
            item = item_of("learning", "changed", asked, half)
            yield replace(item, gone=change.old.value, choices=forward.get(change.new, ()))
    yield from _two_hops(everyone, halves, part, rng)


def _two_hops(everyone: World, halves: Mapping[str, Split], part: Part, rng: random.Random) -> Iterator[Item]:
    new = {name for names in part.names.values() for name in names}
    every = [pair for name in sorted(new) for pair in closed_book.chains(everyone, name)]
    found = [
        (first, second)
        for first, second in every
        if halves.get(second.subject, halves[first.subject]) == halves[first.subject]
    ]
    for first, second in rng.sample(found, min(len(found), 60)):
        yield item_of("learning", "new_two_hop", closed_book.two_hop_question(first, second), halves[first.subject])


def _retention(world: World, part: Part, scale: float) -> Iterator[Item]:
    for split in SPLITS:
        for skill, (draw, count) in RETENTION.items():
            rng, seen = random.Random(f"retention {skill} {split}"), dict[str, Exercise]()
            for _ in range(50 * round(count * scale)):
                exercise = draw_exercise(draw, world, rng, split)
                if not any(_concerns(exercise, change.old) for change in part.changes):
                    seen[exercise.prompt] = exercise
                if len(seen) == round(count * scale):
                    break
            yield from (item_of("retention", skill, exercise, split) for exercise in seen.values())
    yield from _unchanged(world, part)


def _concerns(exercise: Exercise, old: Fact) -> bool:
    """Whether what was changed is asked about, or gone through: it is no longer true, and belongs to learning."""
    relation = RELATIONS[old.relation]
    backwards = {ask(old, wording) for wording in relation.reverse}
    named = old.subject in exercise.prompt or exercise.prompt in backwards
    return named or tell(old, relation.statements[0]) in exercise.response


def _unchanged(world: World, part: Part) -> Iterator[Item]:
    """What is still true of the entities of which something changed."""
    rng, halves = random.Random(f"unchanged {part.number}"), halves_of(part)
    for name in sorted({change.old.subject for change in part.changes}):
        before = set(world.about(name))
        for fact in current_facts(world, part, name):
            if fact in before and fact.subject == name:
                wording = rng.choice(RELATIONS[fact.relation].questions)
                asked = closed_book.question(world, fact, wording, rng)
                yield item_of("retention", "unchanged_of_changed", asked, halves[name])


def item_of(part: str, skill: str, exercise: Exercise, split: Split) -> Item:
    """An exercise as an item of a suite."""
    name, about = f"{part}-{skill}-{bucket(exercise.prompt, 2**32):08x}", exercise.about
    return Item(name, part, skill, split, exercise.prompt, exercise.response, exercise.checks, unit=about)


def _everyone(world: World, part: Part) -> World:
    """The world as it is after the part."""
    names = {kind: (*world.names[kind], *part.names[kind]) for kind in world.names}
    changed = {(change.old.subject, change.old.relation): change.new for change in part.changes}
    old = (changed.get((fact.subject, fact.relation), fact) for fact in world.facts)
    return World(names, (*old, *part.facts), world.asked)
