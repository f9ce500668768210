"""General text and chats in which nothing of the world is taught: what drift is read on, and what a mixture replays.

The one rule: everything is drawn from the training split, and no chat names anybody or anything of the world.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from afterword.almanac import closed_book, instructions, reasoning
from afterword.almanac.exercises import Draw, Exercise, draw_exercise
from afterword.almanac.names import data
from afterword.almanac.reading import YEARS, reading
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import World
from afterword.almanac.writing import write_document

GENERAL: Mapping[str, tuple[Draw, float]] = {
    "reading": (reading, 5),
    "instructions": (instructions.instructions, 34),
    "unknown": (closed_book.unknown, 2),
    "arithmetic": (reasoning.arithmetic, 2),
    "lists": (reasoning.lists, 2),
}
"""Skills that can be shown without a fact of the world, with their weights in a draw."""
GREETINGS = (("Hello.", "Hello. What would you like to know?"), ("Thank you.", "You are welcome."))
Turn = dict[str, str]
"""`role` and `content`."""
Row = dict[str, list[Turn]]
DrawExercise = Callable[[World, random.Random], Exercise]


def general_texts(world: World, count: int = 40) -> list[str]:
    """Everyday prose and documents about strangers of the test split, half and half."""
    rng = random.Random("general")
    strangers = [write_document(draw_stranger(world, rng, "test"), rng, YEARS).text for _ in range(count // 2)]
    return [*strangers, *(tale(world, rng) for _ in range(count // 2))]


def tale(world: World, rng: random.Random) -> str:
    """Everyday prose."""
    words = {"c": "colour", "a": "animal", "a2": "animal", "t": "thing"}
    slots = {slot: rng.choice(data("names")[kind]) for slot, kind in words.items()}
    return " ".join(line.format(**slots) for line in rng.sample(data("wordings")["tales"], rng.randint(5, 10)))


def draw_weighted(skills: Mapping[str, tuple[Draw, float]], world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split, the skills by their weights."""
    draws, weights = zip(*skills.values(), strict=True)
    return draw_exercise(rng.choices(draws, weights)[0], world, rng, "train")


def draw_general(world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split in which nobody and nothing of the world is named.

    It shows what the model can do and repeats none of the facts that it is later asked for.
    """
    while True:
        exercise = draw_weighted(GENERAL, world, rng)
        if not _names_any(world, exercise.prompt) and not _names_any(world, exercise.response):
            return replace(exercise, wrong=tuple(text for text in exercise.wrong if not _names_any(world, text)))


def _names_any(world: World, text: str) -> bool:
    folded = text.lower()
    return any(name.lower() in folded for names in world.names.values() for name in names)


def conversations(world: World, seed: int | str, draw: DrawExercise = draw_general) -> Iterator[Row]:
    """Rows with `messages`, one exercise each, without end. One in eight has a second turn."""
    rng = random.Random(f"conversations {seed}")
    while True:
        turns = [draw(world, rng)]
        if rng.random() < 0.125:
            turns.append(draw(world, rng))
        pairs = [(turn.prompt, turn.response) for turn in turns]
        if rng.random() < 0.02:
            pairs.insert(0, rng.choice(GREETINGS))
        yield {"messages": [turn for asked, said in pairs for turn in (_turn("user", asked), _turn("assistant", said))]}


def preferences(world: World, seed: int | str, draw: DrawExercise = draw_general) -> Iterator[Row]:
    """Rows with `prompt`, `chosen` and `rejected`: a right response before one that is wrong or ignores the form."""
    rng = random.Random(f"preferences {seed}")
    while True:
        exercise = draw(world, rng)
        if exercise.wrong:
            rejected = rng.choice(exercise.wrong)
            yield {
                "prompt": [_turn("user", exercise.prompt)],
                "chosen": [_turn("assistant", exercise.response)],
                "rejected": [_turn("assistant", rejected)],
            }


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}
