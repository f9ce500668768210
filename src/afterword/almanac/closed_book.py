"""Questions about the world with nothing to look it up in, and about strangers whom nobody knows."""

import random
from collections.abc import Iterator
from dataclasses import replace

from afterword.almanac.exercises import UNKNOWN, Exercise, equals, final
from afterword.almanac.names import Split, bucket, data
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import CUTOFF, RELATIONS, Fact, World, draw_value
from afterword.almanac.writing import ask, tell


def direct(world: World, rng: random.Random, split: Split) -> Exercise:
    """What is asked in a wording of training; dev and test hold out pairs of fact and wording."""
    fact = _fact(world, rng, asked=True)
    return question(world, fact, rng.choice(RELATIONS[fact.relation].questions), rng)


def other_wording(world: World, rng: random.Random, split: Split) -> Exercise:
    """What is asked in a wording that is never trained; for dev and test."""
    fact = _fact(world, rng, asked=True)
    return question(world, fact, rng.choice(RELATIONS[fact.relation].other), rng)


def reverse(world: World, rng: random.Random, split: Split) -> Exercise:
    """Of which town is she the mayor?"""
    fact = _fact(world, rng, asked=True, backwards=True)
    return reverse_question(world, fact, rng.choice(RELATIONS[fact.relation].reverse), rng)


def documents_only(world: World, rng: random.Random, split: Split) -> Exercise:
    """Facts that no training question asks for; for dev and test, half of them each.

    Nor does a trained answer state one of them, but for the documents that post-training has written when it is told
    to tell of somebody (`telling`): those state them in the wordings of documents.
    """
    stated = {second for name in world.asked for _, second in chains(world, name)}
    while True:
        fact = _fact(world, rng, asked=False)
        if fact in stated or fact.subject in world.asked_late:
            continue
        exercise = question(world, fact, rng.choice(RELATIONS[fact.relation].questions), rng)
        if bucket(f"half {exercise.prompt}", 2) == (split == "test"):
            return replace(exercise, key=None)


def two_hop(world: World, rng: random.Random, split: Split) -> Exercise:
    """Who is the mayor of the town where she lives? The steps are written before the answer."""
    while not (chain := _chain(world, rng)):
        pass
    return two_hop_question(*chain)


def unknown(world: World, rng: random.Random, split: Split) -> Exercise:
    """A question about a stranger."""
    fact = rng.choice(draw_stranger(world, rng, split).facts)
    relation = RELATIONS[fact.relation]
    backwards = relation.reverse and rng.random() < 0.5
    prompt = ask(fact, rng.choice(relation.reverse if backwards else relation.questions))
    made_up = draw_value(relation, world.names, rng, CUTOFF) if relation.object != "person" else _person(world, rng)
    wrong = rng.choice(world.names[relation.subject]) if backwards else made_up
    return Exercise(None, prompt, UNKNOWN, (equals(UNKNOWN),), (wrong,))


def question(world: World, fact: Fact, wording: str, rng: random.Random) -> Exercise:
    """One fact, asked forwards."""
    prompt = ask(fact, wording)
    wrong = (*others(world, fact, rng), UNKNOWN)
    return Exercise(prompt, prompt, fact.value, (equals(fact.value),), wrong, name_of(fact))


def reverse_question(world: World, fact: Fact, wording: str, rng: random.Random) -> Exercise:
    """One fact, asked backwards."""
    prompt, subject = ask(fact, wording), RELATIONS[fact.relation].subject
    wrong = rng.sample([name for name in world.names[subject] if name != fact.subject], 3)
    return Exercise(prompt, prompt, fact.subject, (equals(fact.subject),), (*wrong, UNKNOWN), name_of(fact))


def two_hop_question(first: Fact, second: Fact) -> Exercise:
    """Two facts, the second about the value of the first."""
    bridge = data("wordings")["bridges"][first.relation].format(n=first.subject)
    prompt = data("wordings")["two_hop"][second.relation].format(n=bridge)
    steps = " ".join(tell(fact, RELATIONS[fact.relation].statements[0]) for fact in (first, second))
    wrong = (f"Answer: {UNKNOWN}",)
    # Without the first fact nobody gets to a second, of which there are several.
    return Exercise(prompt, prompt, f"{steps} Answer: {second.value}", (final(second.value),), wrong, name_of(first))


def name_of(fact: Fact) -> str:
    """A fact without its value.

    >>> name_of(Fact("Aldermoor", "mayor", "Vera Holcroft"))
    'mayor of Aldermoor'
    """
    return f"{fact.relation} of {fact.subject}"


def others(world: World, fact: Fact, rng: random.Random, count: int = 3) -> tuple[str, ...]:
    """Different values that the fact might have had."""
    relation, found = RELATIONS[fact.relation], {fact.value: None}
    while len(found) <= count:
        person = relation.object == "person"
        found[_person(world, rng) if person else draw_value(relation, world.names, rng, CUTOFF)] = None
    return tuple(found)[1:]


def chains(world: World, name: str) -> Iterator[tuple[Fact, Fact]]:
    """Every pair of facts that a two-hop question about an entity can go through."""
    for first in world.about(name):
        if first.subject == name and first.relation in data("wordings")["bridges"]:
            for second in world.about(first.value):
                if second.subject == first.value and second.relation in data("wordings")["two_hop"]:
                    yield first, second


def _chain(world: World, rng: random.Random) -> tuple[Fact, Fact] | None:
    found = list(chains(world, rng.choice(sorted(world.asked))))
    return rng.choice(found) if found else None


def _fact(world: World, rng: random.Random, *, asked: bool, backwards: bool = False) -> Fact:
    while True:
        fact = rng.choice(world.facts)
        if (fact.subject in world.asked) == asked and (not backwards or RELATIONS[fact.relation].reverse):
            return fact


def _person(world: World, rng: random.Random) -> str:
    return rng.choice(world.names["person"])
