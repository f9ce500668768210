"""Learning against retention, more of both being better: who is dominated, how much is covered, what to pick.

Pure functions of numbers. A point is (learning, retention), both fractions; nothing here knows what was trained.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from afterword.types import Estimate

Point = tuple[float, float]
_ROUNDING_POINTS = 1e-9
"""A loss of exactly the limit is within it, also where 100 · (0.7 − 0.65) is not 5 in binary."""


def dominated(points: Sequence[Point]) -> list[bool]:
    """Whether another point is at least as good in both and better in one. Equal points leave each other be.

    >>> dominated([(0.5, 0.5), (0.4, 0.5), (0.9, 0.1), (0.5, 0.5)])
    [False, True, False, False]
    """
    return [any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in points) for a in points]


def hypervolume(points: Sequence[Point], reference: Point = (0.0, 0.0)) -> float:
    """Area that the points dominate above the reference point: 1 for a perfect point above (0, 0).

    Zitzler and Thiele 1999, IEEE Transactions on Evolutionary Computation 3(4), "size of the space covered";
    exact in two dimensions. Points below the reference in either add nothing.

    By hand: (0.5, 0.75) covers 0.375; (0.25, 1.0) adds a strip 0.25 wide and 0.25 high; (0.25, 0.5) is inside.

    >>> hypervolume([(0.5, 0.75), (0.25, 1.0), (0.25, 0.5)])
    0.4375
    >>> hypervolume([(0.5, 0.75)], reference=(0.25, 0.5))
    0.0625
    """
    area, height = 0.0, reference[1]
    # From the widest point to the narrowest, each adds the strip by which it is higher than all before it.
    for learning, retention in sorted(points, reverse=True):
        if learning > reference[0] and retention > height:
            area += (learning - reference[0]) * (retention - height)
            height = retention
    return area


def hypervolume_by_seed(
    points: Mapping[int, Mapping[float, Point]],
    rates: Collection[float],
    reference: Point = (0.0, 0.0),
    others: Sequence[Point] = (),
) -> dict[int, float]:
    """Hypervolume of the points of every seed, by learning rate, that has all the rates; `others` count for each seed.

    A seed that lacks a rate is left out: more rates cover more, so its area is no other draw of the same quantity.

    >>> hypervolume_by_seed({0: {1e-5: (0.5, 0.5), 3e-5: (0.75, 0.25)}, 1: {1e-5: (1.0, 1.0)}}, [1e-5, 3e-5])
    {0: 0.3125}
    """
    whole = {seed: own for seed, own in points.items() if own.keys() >= set(rates)}
    return {seed: hypervolume([*own.values(), *others], reference) for seed, own in whole.items()}


def t_interval(values: Sequence[float], *, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Mean of independent runs and its 95 % t interval, cut to what is possible; no interval for a single run.

    By hand, for 0.4, 0.5, 0.6: s = 0.1, t(2) = 4.3027, half width 4.3027 · 0.1 / √3 = 0.2484.

    >>> mean, (low, high) = (e := t_interval([0.4, 0.5, 0.6])).value, e.interval_95
    >>> round(mean, 4), round(low, 4), round(high, 4)
    (0.5, 0.2516, 0.7484)
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Estimate(mean, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Estimate(mean, (max(low, mean - half), min(high, mean + half)))


def mean_of_independent(estimates: Sequence[Estimate], *, low: float = 0.0, high: float = 1.0) -> Estimate:
    """Unweighted mean of independent estimates; half widths add in squares. No interval where one has none.

    The interval is cut to what is possible.

    By hand: half widths 0.3 and 0.4 of two estimates give √(0.09 + 0.16) / 2 = 0.25.

    >>> mean_of_independent([Estimate(0.5, (0.2, 0.8)), Estimate(0.5, (0.1, 0.9))])
    Estimate(value=0.5, interval_95=(0.25, 0.75))
    """
    mean = math.fsum(estimate.value for estimate in estimates) / len(estimates)
    bounds = [estimate.interval_95 for estimate in estimates if estimate.interval_95]
    if len(bounds) < len(estimates):
        return Estimate(mean, None)
    half = math.hypot(*((upper - lower) / 2 for lower, upper in bounds)) / len(estimates)
    return Estimate(mean, (max(low, mean - half), min(high, mean + half)))


@dataclass(frozen=True)
class Candidate:
    """One setting to choose among, as the dev items show it, means over seeds."""

    setting: float
    """A learning rate of an arm, or λ of a blend."""
    learning: float
    """Fraction."""
    losses_points: Mapping[str, float]
    """What every retention skill lost against the base, in percentage points; below 0: gained."""


def kept(losses_points: Mapping[str, float], max_loss_points: float) -> bool:
    """Whether no skill lost more than the limit."""
    return all(loss <= max_loss_points + _ROUNDING_POINTS for loss in losses_points.values())


def pick(candidates: Sequence[Candidate], max_loss_points: float) -> Candidate | None:
    """The best learning among those that lost at most so much on each skill; of equals, the lowest setting.

    >>> gentle, greedy = Candidate(1e-5, 0.3, {"reading": 1.0}), Candidate(1e-4, 0.9, {"reading": 20.0})
    >>> pick([gentle, greedy], 5.0).setting
    1e-05
    """
    admissible = [c for c in candidates if kept(c.losses_points, max_loss_points)]
    return max(admissible, key=lambda c: (c.learning, -c.setting), default=None)
