"""Means and ratios with 95 % intervals over independent units: the percentile bootstrap, and Wilson's for plain shares.

The one rule: what is resampled is the unit that could have been drawn differently, a document, a question
or a sample, never a token, because tokens of one document are not independent. Before and after are
measured on the same units, so a unit is always resampled with everything that was measured on it
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13). Where all resamples are the same the
bootstrap knows nothing of the spread, so that no interval is without width.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from afterword.types import Estimate

Values = Sequence[float] | np.ndarray
Units = Sequence[Hashable] | None
"""The unit of every value, by any name; values of one unit are resampled together. None: each is its own."""
Statistic = Callable[..., np.ndarray]
"""Takes one array for each vector, units on the last axis, and reduces that axis."""
# Elements of one block of resamples: 32 MiB of float64 for every vector, whatever the number of units.
_BLOCK_ELEMENTS = 1 << 22
_ROUNDING = 1e-9
"""Relative to the value: what is narrower is no spread."""


def estimate(values: Values, *, units: Units = None, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """The mean of values and its interval; no interval for a single unit.

    Where every unit is wrong or right as a whole, 0 or 1, the interval is Wilson's over units: the bootstrap's has no
    width at 0 and 1, and is too narrow near them (Brown, Cai and DasGupta 2001, Statistical Science 16(2)).

    >>> low, high = estimate([0.0] * 19).interval_95  # Wilson's upper bound for 0 of n: z² / (n + z²), z² = 3.8415
    >>> low, round(high, 4)
    (0.0, 0.1682)
    >>> estimate([0.25])
    Estimate(value=0.25, interval_95=None)
    >>> estimate([0.0, 0.5])  # a quarter of the resamples are all 0, a quarter all 0.5
    Estimate(value=0.25, interval_95=(0.0, 0.5))
    """
    sums, counts = _by_unit(values, units)
    means = sums / counts
    # With units of different sizes the share of units is that of values only where all are the same.
    if len(means) > 1 and _are_shares(means) and (np.ptp(counts) == 0 or np.ptp(means) == 0):
        return Estimate(float(means.mean()), _wilson(int(means.sum()), len(means)))
    return _resampled(sums, counts, seed=seed, resamples=resamples)


def paired_change(before: Values, after: Values, *, units: Units = None) -> Estimate:
    """The mean of after − before, over the same units in the same order, by the bootstrap.

    There is nothing to resample where every unit changed by the same v. Of right and wrong answers, 1 and 0, whatever n
    units did not show has a share of at most u, Wilson's upper bound for 0 of n, and changes by at most 1 either way:
    the interval is v (1 − u) ± u. Of other quantities nothing is known, and there is no interval.

    >>> paired_change([1.0, 2.0, 5.0], [0.5, 1.5, 4.5])
    Estimate(value=-0.5, interval_95=None)
    >>> low, high = paired_change([1.0] * 19, [1.0] * 19).interval_95
    >>> round(low, 4), round(high, 4)
    (-0.1682, 0.1682)
    """
    sums, counts = _by_unit(np.subtract(*_checked([after, before])), units)
    found, n = _resampled(sums, counts), len(counts)
    if n == 1 or found.interval_95 or not _are_shares(np.concatenate([before, after])):
        return found
    v, u = found.value, _wilson(0, n)[1]
    return Estimate(v, (v * (1 - u) - u, v * (1 - u) + u))


def ratio_of_means(numerators: Values, denominators: Values) -> Estimate:
    """A quantity per token or per byte: the sum of numerators over the sum of denominators.

    Not the mean of each unit's ratio: a token of a short document counts as much as one of a long document.

    >>> ratio_of_means([2.0, 6.0], [4.0, 8.0])  # half a bit per byte, and three quarters: 8 bits in 12 bytes
    Estimate(value=0.6666666666666666, interval_95=(0.5, 0.75))
    """
    assert np.sum(denominators) > 0, "nothing to divide by"
    return bootstrap_statistic(_ratio, numerators, denominators)


def before_and_after(
    before: Values | None, after: Values | None, per: Values | None = None, *, units: Units = None
) -> dict[str, Any]:
    """`before`, `after` and the paired `change` of a score, each None where a side was not measured.

    Means over `units` (see `estimate`, `paired_change`), or with `per` a ratio to it (see `ratio_of_means`).

    >>> before_and_after([2.0, 6.0], [1.0, 4.0], per=[4.0, 4.0])["change"]
    Estimate(value=-0.375, interval_95=(-0.5, -0.25))
    """
    assert per is None or units is None, "a ratio has no values of one unit to put together"
    measured = partial(estimate, units=units) if per is None else lambda values: ratio_of_means(values, per)
    sides = {"before": before, "after": after}
    sides = {name: None if values is None else measured(values) for name, values in sides.items()}
    if before is None or after is None:
        return {**sides, "change": None}
    if per is None:
        return {**sides, "change": paired_change(before, after, units=units)}
    return {**sides, "change": measured(np.subtract(*_checked([after, before])))}


def bootstrap_statistic(statistic: Statistic, *vectors: Values, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Any statistic of vectors that hold one entry for each unit; the vectors are resampled together.

    `statistic(*arrays)` reduces the last axis of every array. There is no interval for a single unit, nor
    where all resamples are the same, nor where one has no finite value, as a ratio whose denominator came out as zero.

    >>> gap_closed = lambda b, c, a: (b - a).mean(-1) / (b - c).mean(-1)
    >>> bootstrap_statistic(gap_closed, [4.0, 3.0], [2.0, 1.0], [4.0, 2.0])
    Estimate(value=0.25, interval_95=(0.0, 0.5))
    """
    data = _checked(vectors)
    value, units = float(statistic(*data)), data[0].size
    if units == 1:
        return Estimate(value, None)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is looked at below
        result = stats.bootstrap(
            data,
            lambda *arrays, axis: statistic(*arrays),
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=resamples,
            batch=max(1, _BLOCK_ELEMENTS // units),
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    # Resamples that are all the same still differ by rounding: thirty times 0.1 is not 3.
    known = np.isfinite(result.bootstrap_distribution).all() and high - low > _ROUNDING * abs(value)
    return Estimate(value, (float(low), float(high)) if known else None)


def _resampled(sums: np.ndarray, counts: np.ndarray, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """The mean of values by the bootstrap over units, from each unit's sum and count."""
    if np.ptp(counts) == 0:
        return bootstrap_statistic(lambda array: array.mean(-1), sums / counts, seed=seed, resamples=resamples)
    return bootstrap_statistic(_ratio, sums, counts, seed=seed, resamples=resamples)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return over.sum(-1) / under.sum(-1)


def _by_unit(values: Values, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the count of every unit's values, in the order in which units come."""
    (array,) = _checked([values])
    if units is None:
        return array, np.ones_like(array)
    assert len(units) == array.size, "every value has a unit"
    places = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    rows = [places[unit] for unit in units]
    return np.bincount(rows, array), np.bincount(rows).astype(np.float64)


def _are_shares(values: np.ndarray) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _wilson(count: int, n: int) -> tuple[float, float]:
    low, high = stats.binomtest(count, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def _checked(vectors: Sequence[Values]) -> list[np.ndarray]:
    arrays = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    assert all(array.ndim == 1 and array.size for array in arrays), "one number for each unit, at least one"
    assert len({array.size for array in arrays}) == 1, "vectors over the same units have the same length"
    assert all(np.isfinite(array).all() for array in arrays), "a measured value is not a finite number"
    return arrays
