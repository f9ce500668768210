"""Means and ratios with 95 % intervals, by the percentile bootstrap over independent units.

The one rule: what is resampled is the unit that could have been drawn differently, a document, a question
or a sample, never a token, because tokens of one document are not independent. Before and after are
measured on the same units, so a unit is always resampled with everything that was measured on it
(Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from afterword.types import Estimate

Values = Sequence[float] | np.ndarray
Statistic = Callable[..., np.ndarray]
"""Takes one array for each vector, units on the last axis, and reduces that axis."""
# Elements of one block of resamples: 32 MiB of float64 for every vector, whatever the number of units.
_BLOCK_ELEMENTS = 1 << 22


def estimate(values: Values, *, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """The mean of independent values and its interval; no interval for a single value.

    >>> estimate([1.0, 1.0, 1.0])
    Estimate(value=1.0, interval_95=(1.0, 1.0))
    >>> estimate([0.25])
    Estimate(value=0.25, interval_95=None)
    >>> estimate([0.0, 1.0])  # a quarter of the resamples are all 0, a quarter all 1
    Estimate(value=0.5, interval_95=(0.0, 1.0))
    """
    return bootstrap_statistic(lambda array: array.mean(-1), values, seed=seed, resamples=resamples)


def paired_change(before: Values, after: Values) -> Estimate:
    """The mean of after − before, over the same units in the same order.

    >>> paired_change([1.0, 2.0, 5.0], [0.5, 1.5, 4.5])
    Estimate(value=-0.5, interval_95=(-0.5, -0.5))
    """
    return estimate(np.subtract(*_checked([after, before])))


def ratio_of_means(numerators: Values, denominators: Values) -> Estimate:
    """A quantity per token or per byte: the sum of numerators over the sum of denominators.

    Not the mean of each unit's ratio: a token of a short document counts as much as one of a long document.

    >>> ratio_of_means([2.0, 6.0], [4.0, 12.0])  # 8 bits in 16 bytes; each unit has half a bit per byte
    Estimate(value=0.5, interval_95=(0.5, 0.5))
    """
    assert np.sum(denominators) > 0, "nothing to divide by"
    return bootstrap_statistic(lambda over, under: over.sum(-1) / under.sum(-1), numerators, denominators)


def before_and_after(before: Values | None, after: Values | None, per: Values | None = None) -> dict[str, Any]:
    """`before`, `after` and the paired `change` of a score, each None where a side was not measured.

    Means, or with `per` a ratio to it (see `ratio_of_means`) over the same units.

    >>> before_and_after([2.0, 6.0], [1.0, 3.0], per=[4.0, 12.0])["change"]
    Estimate(value=-0.25, interval_95=(-0.25, -0.25))
    """
    measured = estimate if per is None else lambda values: ratio_of_means(values, per)
    change = None if before is None or after is None else np.subtract(*_checked([after, before]))
    sides = {"before": before, "after": after, "change": change}
    return {name: None if values is None else measured(values) for name, values in sides.items()}


def bootstrap_statistic(statistic: Statistic, *vectors: Values, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Any statistic of vectors that hold one entry for each unit; the vectors are resampled together.

    `statistic(*arrays)` reduces the last axis of every array. There is no interval for a single unit, nor
    where a resample has no finite value, as a ratio whose denominator came out as zero.

    >>> gap_closed = lambda b, c, a: (b - a).mean(-1) / (b - c).mean(-1)
    >>> bootstrap_statistic(gap_closed, [4.0, 3.0], [2.0, 1.0], [3.0, 2.0])
    Estimate(value=0.5, interval_95=(0.5, 0.5))
    """
    data = _checked(vectors)
    value, units = float(statistic(*data)), data[0].size
    if units == 1:
        return Estimate(value, None)
    if all(np.ptp(vector) == 0 for vector in data):
        # Every resample is the sample; the mean of thirty times 0.1 would differ from 0.1 by rounding.
        return Estimate(value, (value, value))
    how = {"paired": True, "vectorized": True, "method": "percentile", "rng": np.random.default_rng(seed)}
    how |= {"n_resamples": resamples, "batch": max(1, _BLOCK_ELEMENTS // units)}
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is looked at below
        result = stats.bootstrap(data, lambda *arrays, axis: statistic(*arrays), **how)
    low, high = result.confidence_interval
    return Estimate(value, (float(low), float(high)) if np.isfinite(result.bootstrap_distribution).all() else None)


def _checked(vectors: Sequence[Values]) -> list[np.ndarray]:
    arrays = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    assert all(array.ndim == 1 and array.size for array in arrays), "one number for each unit, at least one"
    assert len({array.size for array in arrays}) == 1, "vectors over the same units have the same length"
    assert all(np.isfinite(array).all() for array in arrays), "a measured value is not a finite number"
    return arrays
