"""Of the models between what was given and what was trained, the farthest that keeps the budget.

The one rule: what is lost grows along the way, and so does what is learned; so the farthest that keeps the budget is
the one that learns most within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

from afterword.budget.yardstick import Standing
from afterword.settings.forgetting_budget import Budget

_NEAR, _AIM = 0.85, 0.95
"""Of the budget: what uses so much of it is near enough; and how much is aimed at."""
_POWER = 2.45
"""Of the share, with which drift grows while only the end is known: 2.3 and 2.6 in two runs on a real model."""
_MOST_MEASURED = 5
"""Points of the way besides its end."""


@dataclass(frozen=True)
class Point:
    """One model on the way."""

    share: float
    """λ: 0 is the model as it was given, 1 as it was trained."""
    standing: Standing


@dataclass(frozen=True)
class Walk:
    """What was measured on the way, and which of it is taken."""

    points: tuple[Point, ...]
    """In the order in which they were measured; the end of the way is the first."""
    taken: Point


def walk(standing_at: Callable[[float], Standing], budget: Budget) -> Walk:
    """The farthest point of the way that keeps the budget; its start, where nothing was learned, if none does.

    `standing_at` measures the model at a share. Between two points what is lost is taken to grow with a power of the
    share: with _POWER at first, a little more than the square that a divergence has near its minimum, then as measured
    points say.
    """
    points = [Point(1.0, standing_at(1.0))]
    over, kept, farther = points[0], None, None
    while over.standing.lost > budget.limit and len(points) <= _MOST_MEASURED:
        share = _between(kept, over, farther, _AIM * budget.limit)
        points.append(Point(share, standing_at(share)))
        if points[-1].standing.lost > budget.limit:
            over, farther = points[-1], over
        else:
            kept = points[-1]
            if kept.standing.lost >= _NEAR * budget.limit:
                break
    if points[0].standing.lost <= budget.limit:
        return Walk(tuple(points), points[0])
    return Walk(tuple(points), kept or Point(0.0, Standing(0.0, 0.0, 0.0)))


def _between(kept: Point | None, over: Point, farther: Point | None, lost: float) -> float:
    """The share at which so much is lost, by the power of the share that two points speak for."""
    low, high, power = (kept.share if kept else 0.0), over.share, _POWER
    if other := kept or farther:
        losses, shares = (over.standing.lost, other.standing.lost), (over.share, other.share)
        if min(losses) > 0 and losses[0] != losses[1]:
            power = log(losses[0] / losses[1]) / log(shares[0] / shares[1])
    share = high * (lost / over.standing.lost) ** (1 / power) if power > 0 else 0.0
    # Close to either end nothing new would be measured.
    margin = 0.1 * (high - low)
    return min(max(share, low + margin), high - margin)
