"""What turns the base model into the chat model: exercises in the chat template, then preferences.

The one rule: only responses are trained, and everything is drawn from the training split.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from afterword.almanac.exercises import Draw, Exercise, draw_exercise
from afterword.almanac.pretraining import TRAINED
from afterword.almanac.reading import reading
from afterword.almanac.world import World

TRAINED_IN_CHAT: Mapping[str, tuple[Draw, float]] = {**TRAINED, "reading": (reading, 5)}
"""Skills of the chat model, with their weights in a draw."""
GREETINGS = (("Hello.", "Hello. What would you like to know?"), ("Thank you.", "You are welcome."))


def conversations(world: World, seed: int) -> Iterator[dict[str, Any]]:
    """Rows with `messages`, one exercise each, without end. One in eight has a second turn."""
    rng = random.Random(f"conversations {seed}")
    while True:
        turns = [draw_trained(world, rng)]
        if rng.random() < 0.125:
            turns.append(draw_trained(world, rng))
        pairs = [(turn.prompt, turn.response) for turn in turns]
        if rng.random() < 0.02:
            pairs.insert(0, rng.choice(GREETINGS))
        roles = [{"role": role, "content": text} for pair in pairs for role, text in zip(_ROLES, pair, strict=True)]
        yield {"messages": roles}


def preferences(world: World, seed: int) -> Iterator[dict[str, Any]]:
    """Rows with `prompt`, `chosen` and `rejected`: a right response before one that is wrong or ignores the form."""
    rng = random.Random(f"preferences {seed}")
    while True:
        exercise = draw_trained(world, rng)
        if exercise.wrong:
            sides = {"chosen": exercise.response, "rejected": rng.choice(exercise.wrong)}
            answers = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
            yield {"prompt": [{"role": "user", "content": exercise.prompt}], **answers}


def draw_trained(world: World, rng: random.Random) -> Exercise:
    """A random exercise of the training split."""
    draws, weights = zip(*TRAINED_IN_CHAT.values(), strict=True)
    return draw_exercise(rng.choices(draws, weights)[0], world, rng, "train")


_ROLES = ("user", "assistant")
