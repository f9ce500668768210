"""Pilot runs: which learning rate teaches most within the budget, tried on a part of the documents.

A pilot makes as many passes as the run will, with its schedule, over fewer documents, and is scored by what is learned
at the farthest point of its way that keeps the budget. Rates are tried half a decade apart, up and down from a first
guess, as long as that pays. The one rule: a rate is compared with others on the same documents and texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEP = 10**0.5
"""From one rate to the next."""
MOST_PILOTS = 5
_PARAMETERS, _RATE = 135e6, 1e-4
"""A rate that teaches a post-trained model of this size, measured (docs/LOG.md); a first guess for others."""
_LORA_FACTOR = 10.0
"""An adapter's weights start at nothing, and take larger rates than those of the whole model."""
_GOOD_ENOUGH = 0.95
"""Of the most that any rate teaches: the gentlest rate that teaches so much is taken."""
PASSES, _TOKENS = 6.0, 5e3
"""Passes over a small corpus, and how small it is. Ours."""


@dataclass(frozen=True)
class Pilot:
    """What came of one rate."""

    learning_rate: float
    learned_nats: float
    """Within the budget."""
    share: float
    """How far along its way the budget was kept."""
    lost: float
    """There, in the unit of the budget."""
    lost_at_end: float | None
    """At the end of its way; None where the run diverged."""
    seconds: float


def first_rate(trained_parameters: int, *, adapter: bool) -> float:
    """Where the search for a rate begins: it falls with the square root of the model's size.

    >>> f"{first_rate(135_000_000, adapter=False):.0e}", f"{first_rate(7_000_000_000, adapter=False):.0e}"
    ('1e-04', '1e-05')
    """
    rate = _RATE * (_PARAMETERS / trained_parameters) ** 0.5 * (_LORA_FACTOR if adapter else 1.0)
    return float(f"{rate:.0e}")


def passes_over(tokens: int) -> int:
    """Passes over a corpus of so many tokens: six over a small one, fewer the larger it is, down to one. Ours.

    >>> passes_over(5_000), passes_over(36_000), passes_over(1_000_000), passes_over(100_000_000)
    (6, 4, 2, 1)
    """
    return max(1, round(PASSES * min(1.0, (_TOKENS / max(tokens, 1)) ** 0.2)))


def searched(first: float, pilot_of: Callable[[float], Pilot], known: Sequence[Pilot] = ()) -> list[Pilot]:
    """Pilots around a first rate, until going further in either direction teaches less, or MOST_PILOTS were run.

    `known` are those that were run before, in their order: the search is the same whenever it is interrupted.
    """
    found: dict[int, Pilot] = {}
    done = {_place(first, pilot.learning_rate): pilot for pilot in known}

    def learned(place: int) -> float:
        """What the rate at a place teaches within the budget, in nats; a pilot is run once."""
        if place not in found:
            found[place] = done.get(place) or pilot_of(rate_at(first, place))
        return found[place].learned_nats

    here = 0
    learned(here)
    direction = 1 if learned(1) > learned(0) else -1
    here = max((0, 1), key=learned)
    while len(found) < MOST_PILOTS and learned(here + direction) > learned(here):
        here += direction
    return list(found.values())


def rate_at(first: float, place: int) -> float:
    """So many half decades from the first rate, in two digits.

    >>> rate_at(1e-4, 1), rate_at(1e-4, -2)
    (0.00032, 1e-05)
    """
    return float(f"{first * STEP**place:.1e}")


def _place(first: float, rate: float) -> int:
    return round(math.log(rate / first) / math.log(STEP))


def chosen_rate(pilots: Sequence[Pilot]) -> Pilot | None:
    """The gentlest rate that teaches nearly as much as the best; None where none teaches anything."""
    best = max(pilot.learned_nats for pilot in pilots)
    if best <= 0:
        return None
    return min((p for p in pilots if p.learned_nats >= _GOOD_ENOUGH * best), key=lambda pilot: pilot.learning_rate)
