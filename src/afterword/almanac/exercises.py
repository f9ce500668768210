"""Exercises with answers that can be checked: what the embedded chat model is trained and tested on.

The one rule: an exercise carries its own key, and the key's hash decides its split. A draw for a split is
repeated until the key falls into it, so no exercise is in two of them.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from afterword.almanac.names import Split, split_of
from afterword.almanac.world import World
from afterword.evaluation.checks import passes
from afterword.evaluation.right_answers import words_of

UNKNOWN = "I do not know."
"""What the chat model says of what it has never heard of."""
Check = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exercise:
    """A prompt, a response that is right, and what makes any response right (evaluation/checks.py)."""

    key: str | None
    """What its split follows from; None where strangers' names already decide it."""
    prompt: str
    response: str
    checks: tuple[Check, ...]
    wrong: tuple[str, ...] = ()
    """Responses that are not right: what preference training turns away from, the likeliest mistakes first."""
    about: str | None = None
    """The fact it asks for, which other exercises may ask for too; None where it has nothing in common with them."""

    def accepts(self, response: str) -> bool:
        """Whether a response is right: all checks hold."""
        return all(passes(response, check) for check in self.checks)


Draw = Callable[[World, random.Random, Split], Exercise]
"""One random exercise. Strangers in it are of the split; its key may fall into another."""


def draw_exercise(draw: Draw, world: World, rng: random.Random, split: Split) -> Exercise:
    """A random exercise of a split."""
    while True:
        exercise = draw(world, rng, split)
        if exercise.key is None or split_of(exercise.key) == split:
            # A mistake may happen to be right: the third word of three is also the last.
            return replace(exercise, wrong=tuple(text for text in exercise.wrong if not exercise.accepts(text)))


def equals(value: str) -> Check:
    """The whole response is this value."""
    return {"kind": "equals", "value": value}


def final(value: str) -> Check:
    """The response ends with `Answer:` and this value."""
    return {"kind": "final", "value": value}


def only(*texts: str) -> Check:
    """The response has no word that is in none of these texts."""
    return {"kind": "only", "value": " ".join(sorted(words_of(" ".join(texts))))}


def final_list(*values: str) -> Check:
    """The response ends with `Answer:` and these values in this order, with commas between."""
    return {"kind": "final_list", "values": list(values)}
