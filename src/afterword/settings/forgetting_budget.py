"""The forgetting budget: the most that a run may lose, in nats of drift or in points of retention."""

import re
from dataclasses import dataclass
from typing import Literal

from afterword.errors import ConfigError

Unit = Literal["nats", "points"]
DEFAULTS: dict[Unit, float] = {"nats": 0.1, "points": 2.0}
"""Where nobody says how much may be lost."""
_MOST: dict[Unit, float] = {"nats": 5.0, "points": 100.0}
_UNITS: dict[str, Unit] = {"nat": "nats", "nats": "nats", "point": "points", "points": "points"}


@dataclass(frozen=True)
class Budget:
    """The most that may be lost.

    In `nats`: drift, the mean KL(before ‖ after) of a token on text that the model itself wrote before; of a chat model
    the larger of two, on samples of both turns and on its replies to everyday questions. In `points`: per cent of
    retention questions answered right, the mean over skills.
    """

    limit: float
    unit: Unit
    given: bool = True
    """Whether a person said it; False: the default."""

    def __str__(self) -> str:
        return f"{self.limit:g} {self.unit}"


def budget_of(text: str | None, *, points: bool) -> Budget:
    """The budget that a text says, such as `0.1nats` or `2 points`; the default of its unit where there is none.

    `points`: whether there is something to measure points of retention on. A number alone is taken in points there,
    else in nats. ConfigError for anything else.

    >>> budget_of("0.2nats", points=False), budget_of("3", points=True).unit
    (Budget(limit=0.2, unit='nats', given=True), 'points')
    """
    usual: Unit = "points" if points else "nats"
    if text is None:
        return Budget(DEFAULTS[usual], usual, given=False)
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:e-?\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if not found or found[2] not in ("", *_UNITS):
        raise ConfigError(f"forgetting_budget: must be a number with nats or points, got {text!r}. Give 0.1nats.")
    limit, unit = float(found[1]), _UNITS[found[2]] if found[2] else usual
    if unit == "points" and not points:
        problem = f"forgetting_budget: {text!r} is in points of retention, and there is nothing to measure them on"
        raise ConfigError(f"{problem}. Give a suite, or nats of drift: 0.1nats.")
    if not 0 < limit <= _MOST[unit]:
        raise ConfigError(f"forgetting_budget: {limit:g} {unit} must be above 0 and at most {_MOST[unit]:g}.")
    return Budget(limit, unit)
