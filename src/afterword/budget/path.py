"""Of the models between what was given and what was trained, the farthest that keeps the budget.

The one rule: what is lost grows along the way, and so does what is learned; so the farthest that keeps the budget is
the one that learns most within it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from afterword.budget.yardstick import Standing
from afterword.forgetting import Budget

_NEAR = 0.85
"""Of the budget: what uses so much of it is near enough."""
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

    `standing_at` measures the model at a share. The first guess takes what is lost to grow with the square of the
    share, as a divergence does near its minimum; then the way is halved.
    """
    points = [Point(1.0, standing_at(1.0))]
    if points[0].standing.lost <= budget.limit:
        return Walk(tuple(points), points[0])
    kept, over = None, points[0]
    while len(points) <= _MOST_MEASURED:
        low = kept.share if kept else 0.0
        square = over.share * (budget.limit / over.standing.lost) ** 0.5
        share = round(square if low < square < over.share and len(points) < 3 else (low + over.share) / 2, 3)
        points.append(Point(share, standing_at(share)))
        if points[-1].standing.lost <= budget.limit:
            kept = points[-1]
            if kept.standing.lost >= _NEAR * budget.limit:
                break
        else:
            over = points[-1]
    return Walk(tuple(points), kept or Point(0.0, Standing(0.0, 0.0, 0.0)))
