"""What turns the base model into the chat model: exercises in the chat template, then preferences.

The one rule: only responses are trained, and everything is drawn from the training split.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from afterword.almanac import closed_book, instructions
from afterword.almanac.exercises import UNKNOWN, Draw, Exercise, draw_exercise, equals
from afterword.almanac.names import Split
from afterword.almanac.pretraining import TRAINED
from afterword.almanac.reading import YEARS, reading
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import World
from afterword.almanac.writing import Subject, write_document


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


TRAINED_IN_CHAT: Mapping[str, tuple[Draw, float]] = {
    **TRAINED,
    "reverse": (closed_book.reverse, 2),
    "asked_late": (closed_book.asked_late, 5),
    "unknown": (closed_book.unknown, 2),
    "instructions": (instructions.instructions, 34),
    "reading": (reading, 5),
    "telling": (telling, 10),
}
"""Skills of the chat model, with their weights in a draw."""
GREETINGS = (("Hello.", "Hello. What would you like to know?"), ("Thank you.", "You are welcome."))


GENERAL = ("reading", "instructions", "unknown", "arithmetic", "lists")
"""Skills that can be shown without a fact of the world."""


def draw_trained(world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split."""
    return _drawn(world, rng, tuple(TRAINED_IN_CHAT))


def draw_general(world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split in which nobody and nothing of the world is named.

    It shows what the model can do and repeats none of the facts that it is later asked for.
    """
    while True:
        exercise = _drawn(world, rng, GENERAL)
        if not _names_any(world, exercise.prompt) and not _names_any(world, exercise.response):
            return replace(exercise, wrong=tuple(text for text in exercise.wrong if not _names_any(world, text)))


def _drawn(world: World, rng: random.Random, skills: tuple[str, ...]) -> Exercise:
    draws, weights = zip(*(TRAINED_IN_CHAT[skill] for skill in skills), strict=True)
    return draw_exercise(rng.choices(draws, weights)[0], world, rng, "train")


def _names_any(world: World, text: str) -> bool:
    folded = text.lower()
    return any(name.lower() in folded for names in world.names.values() for name in names)


def conversations(
    world: World, seed: int | str, draw: Callable[[World, random.Random], Exercise] = draw_trained
) -> Iterator[dict[str, Any]]:
    """Rows with `messages`, one exercise each, without end. One in eight has a second turn."""
    rng = random.Random(f"conversations {seed}")
    while True:
        turns = [draw(world, rng)]
        if rng.random() < 0.125:
            turns.append(draw(world, rng))
        pairs = [(turn.prompt, turn.response) for turn in turns]
        if rng.random() < 0.02:
            pairs.insert(0, rng.choice(GREETINGS))
        roles = [{"role": role, "content": text} for pair in pairs for role, text in zip(_ROLES, pair, strict=True)]
        yield {"messages": roles}


def preferences(
    world: World, seed: int | str, draw: Callable[[World, random.Random], Exercise] = draw_trained
) -> Iterator[dict[str, Any]]:
    """Rows with `prompt`, `chosen` and `rejected`: a right response before one that is wrong or ignores the form."""
    rng = random.Random(f"preferences {seed}")
    while True:
        exercise = draw(world, rng)
        if exercise.wrong:
            sides = {"chosen": exercise.response, "rejected": rng.choice(exercise.wrong)}
            answers = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
            yield {"prompt": [{"role": "user", "content": exercise.prompt}], **answers}


_ROLES = ("user", "assistant")
