"""What turns the base model into the chat model: exercises in the chat template, then preferences.

The one rule: only responses are trained, and everything is drawn from the training split.
"""

import random
from collections.abc import Mapping

from afterword.almanac import closed_book
from afterword.almanac.exercises import UNKNOWN, Draw, Exercise, equals
from afterword.almanac.general import GENERAL, draw_weighted
from afterword.almanac.names import Split
from afterword.almanac.reading import YEARS
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import RELATIONS, World
from afterword.almanac.writing import Subject, write_document
from almanac_build.pretraining import TRAINED


def telling(world: World, rng: random.Random, split: Split) -> Exercise:
    """Tell me about her: a document about an entity of the world, or that a stranger is not known.

    It keeps what documents alone have taught, and tells names that were read about from those that were not. The
    entities that no question is about are told of like all others.
    """
    wording = rng.choice(("Tell me about {}.", "Write about {}.", "Give an account of {}."))
    if rng.random() < 0.2:
        prompt = wording.format(draw_stranger(world, rng, split).name)
        return Exercise(None, prompt, UNKNOWN, (equals(UNKNOWN),))
    kind = rng.choices(tuple(world.names), [len(names) for names in world.names.values()])[0]
    name = rng.choice(world.names[kind])
    document = write_document(Subject(name, kind, world.about(name)), rng, YEARS)
    return Exercise(None, wording.format(name), document.text, ({"kind": "contains", "value": name},))


def asked_late(world: World, rng: random.Random, split: Split) -> Exercise:
    """About entities that pre-training never asks about."""
    while (fact := rng.choice(world.facts)).subject not in world.asked_late:
        pass
    return closed_book.question(world, fact, rng.choice(RELATIONS[fact.relation].questions), rng)


# In this order: what is drawn depends on it.
TRAINED_IN_CHAT: Mapping[str, tuple[Draw, float]] = {
    **TRAINED,
    "reverse": (closed_book.reverse, 2),
    "asked_late": (asked_late, 5),
    **GENERAL,
    "telling": (telling, 10),
}
"""Skills of the chat model, with their weights in a draw."""


def draw_trained(world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split."""
    return draw_weighted(TRAINED_IN_CHAT, world, rng)
