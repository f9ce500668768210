"""What holds for any correct interval: its coverage, its pairing, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from commands import run_python

from afterword.evaluation.intervals import (
    before_and_after,
    bootstrap_statistic,
    estimate,
    paired_change,
    ratio_of_means,
)
from afterword.types import Estimate


def _width(result: Estimate) -> float:
    assert result.interval_95 is not None
    return result.interval_95[1] - result.interval_95[0]


def test_the_interval_covers_the_true_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    results = [estimate(rng.normal(3.0, 2.0, 60), seed=i, resamples=500) for i in range(400)]
    intervals = [result.interval_95 for result in results if result.interval_95]
    covered = sum(low <= 3.0 <= high for low, high in intervals)
    # Binomial standard deviation of 400 trials at 0.95 is 4.4; the percentile bootstrap is a little narrow.
    assert covered / 400 == pytest.approx(0.945, abs=0.03)


def test_the_interval_is_that_of_the_normal_formula_for_many_values():
    values = np.random.default_rng(1).normal(size=2_000)
    by_formula = 2 * 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert _width(estimate(values)) == pytest.approx(by_formula, rel=0.05)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(2).normal(size=30)
    assert estimate(values, seed=5) == estimate(values, seed=5)
    assert estimate(values, seed=5) != estimate(values, seed=6)


def test_global_random_state_neither_decides_nor_moves():
    np.random.seed(0)
    state = np.random.get_state()
    first = estimate([0.0, 1.0, 4.0])
    np.testing.assert_equal(np.random.get_state(), state)
    np.random.seed(1)
    assert estimate([0.0, 1.0, 4.0]) == first


@pytest.mark.parametrize("values", [[0.3], [0.1] * 30, [1.0], [0.5] * 2])
def test_there_is_no_interval_where_nothing_can_be_resampled(values: list[float]):
    assert estimate(values) == Estimate(pytest.approx(values[0]), None)


# With z² = 3.841459: z² / (19 + z²) = 0.168179; and around 1/2, z √(0.025 + z² / 400) / (1 + z² / 10) = 0.263407.
@pytest.mark.parametrize(
    ("right", "of", "interval"),
    [(0, 19, (0.0, 0.168179)), (19, 19, (0.831821, 1.0)), (5, 10, (0.236593, 0.763407)), (0, 2, (0.0, 0.657620))],
)
def test_a_share_has_wilsons_interval(right: int, of: int, interval: tuple[float, float]):
    found = estimate([1.0] * right + [0.0] * (of - right))
    assert found.value == right / of
    assert found.interval_95 == pytest.approx(interval, abs=1e-6)
    sides = before_and_after([1.0] * right + [0.0] * (of - right), [0.0] * of)
    assert sides["before"] == found


def test_a_mean_that_is_no_share_keeps_the_bootstrap():
    # Of 256 resamples 5 have a mean below 0.25 and 19 have at most that, and 16 have a mean of 1.
    assert estimate([0.0, 1.0, 1.0, 0.5]).interval_95 == (0.25, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "interval"),
    [
        (0.0, 0.0, (-0.168179, 0.168179)),
        (1.0, 1.0, (-0.168179, 0.168179)),
        (0.0, 1.0, (1 - 2 * 0.168179, 1.0)),
        (1.0, 0.0, (-1.0, 2 * 0.168179 - 1)),
    ],
)
def test_answers_that_all_change_alike_are_not_certain(before: float, after: float, interval: tuple[float, float]):
    change = before_and_after([before] * 19, [after] * 19)["change"]
    assert change.value == after - before
    assert change.interval_95 == pytest.approx(interval, abs=1e-6)


def test_the_change_of_answers_is_resampled_and_no_share():
    # Of ten, four were learned: every change is 0 or 1, and still a change may be below 0.
    before, after = [0.0] * 10, [1.0] * 4 + [0.0] * 6
    change, share = paired_change(before, after), estimate(after)
    assert change.interval_95 == (pytest.approx(0.1), pytest.approx(0.7))
    assert share.interval_95 != change.interval_95


def test_losses_that_all_change_alike_have_no_interval():
    assert paired_change([2.0, 3.0], [1.5, 2.5]) == Estimate(-0.5, None)


def test_values_of_one_unit_are_resampled_together():
    rng = np.random.default_rng(8)
    means, counts = rng.normal(size=60), rng.integers(1, 6, 60)
    values = np.repeat(means, counts)
    units = [f"fact {i}" for i, count in enumerate(counts) for _ in range(count)]
    together, apart = estimate(values, units=units), estimate(values)
    assert together.value == pytest.approx(apart.value)
    # Values that say the same thing again know nothing new: the interval is that of a mean over units, weighed by size.
    assert together.interval_95 == pytest.approx(ratio_of_means(means * counts, counts).interval_95)
    assert _width(together) > 1.3 * _width(apart)


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0, 0.0, 1.0], [0.0] * 5, [0.25, 0.5, 1.0, 0.0, 0.1]])
def test_asking_everything_twice_narrows_no_interval(values: list[float]):
    units, after = list("abcde"), [1.0, 1.0, 0.0, 1.0, 1.0]
    once = before_and_after(values, after, units=units)
    assert before_and_after(values * 2, after * 2, units=units * 2) == once
    assert before_and_after(values, after) == once, "units of one are no units"
    assert before_and_after(values * 2, after * 2) != once


def test_units_of_different_sizes_that_are_all_wrong_are_so_many_wrong_units():
    found = before_and_after([0.0] * 8, [0.0] * 8, units=list("aaabbcde"))
    assert found["after"] == estimate([0.0] * 5)
    assert found["change"] == paired_change([0.0] * 5, [0.0] * 5)


def test_pairing_narrows_the_interval_of_a_change_in_correlated_units():
    rng = np.random.default_rng(3)
    before = rng.normal(0.0, 5.0, 100)
    after = before - 0.5 + rng.normal(0.0, 0.1, 100)
    paired = paired_change(before, after)
    shuffled = paired_change(before, rng.permutation(after))
    assert paired.value == pytest.approx(shuffled.value) == pytest.approx(after.mean() - before.mean())
    assert _width(paired) < 0.1 * _width(shuffled)
    assert paired.interval_95 is not None
    assert paired.interval_95[1] < 0, "a decrease is negative"


def test_a_ratio_weighs_units_by_their_denominators():
    # One document with 1 token at 10 nats, another with 99 tokens at 1 nat each.
    assert ratio_of_means([10.0, 99.0], [1.0, 99.0]).value == pytest.approx(1.09)


def test_units_not_tokens_are_resampled_in_a_ratio():
    # Each unit is constant, so resampling tokens inside units would see hundreds of independent values.
    rng = np.random.default_rng(4)
    rates = rng.normal(2.0, 0.5, 20)
    tokens = np.full(20, 1_000.0)
    assert _width(ratio_of_means(rates * tokens, tokens)) == pytest.approx(_width(estimate(rates)), rel=1e-6)


def test_a_paired_ratio_change_is_the_difference_of_the_ratios():
    rng = np.random.default_rng(5)
    tokens = rng.integers(10, 500, 40).astype(float)
    before = tokens * rng.normal(3.0, 1.0, 40)
    after = before - 0.2 * tokens
    change = before_and_after(before, after, per=tokens)["change"]
    assert change.value == pytest.approx(ratio_of_means(after, tokens).value - ratio_of_means(before, tokens).value)
    assert change.value == pytest.approx(-0.2)
    assert change.interval_95 is None, "paired, it is 0.2 in every resample"


def test_a_statistic_of_several_vectors_is_resampled_by_unit():
    rng = np.random.default_rng(6)
    b = rng.normal(5.0, 1.0, 50)
    c, a = b - 1.0, b - 0.25

    def gap_closed(b: np.ndarray, c: np.ndarray, a: np.ndarray) -> np.ndarray:
        return (b - a).mean(-1) / (b - c).mean(-1)

    result = bootstrap_statistic(gap_closed, b, c, a)
    assert result.value == pytest.approx(0.25)
    assert result.interval_95 is None, "paired, the quarter is exact in every resample"
    assert bootstrap_statistic(gap_closed, b, c, rng.permutation(a)).interval_95


def test_there_is_no_interval_where_a_resample_has_no_value():
    def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x.sum(-1) / y.sum(-1)

    assert bootstrap_statistic(ratio, [1.0, 1.0, 2.0], [0.0, 0.0, 1.0]) == Estimate(4.0, None)


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf, 1.0], []])
def test_values_that_were_not_measured_are_refused(bad: list[float]):
    with pytest.raises(AssertionError):
        estimate(bad)


def test_unequal_lengths_cannot_be_paired():
    with pytest.raises(AssertionError, match="same length"):
        paired_change([1.0, 2.0], [1.0])
    with pytest.raises(AssertionError):
        ratio_of_means([1.0, 2.0], [0.0, 0.0])


def test_memory_stays_bounded_over_many_units():
    # 10,000 resamples of 20,000 units at once would be 1.6 GB; a block is 32 MiB a vector.
    import tracemalloc

    tracemalloc.start()
    estimate(np.random.default_rng(7).normal(size=20_000), resamples=1_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6


def test_statistics_do_not_load_torch():
    # A report imports them, and must open in a place without torch.
    run_python("-c", "import sys, afterword.evaluation.intervals; assert 'torch' not in sys.modules")
