"""Dominance, hypervolume and pick: numbers by hand, and what any correct implementation keeps to."""

import random

import pytest

from afterword.comparison.frontier import Candidate, dominated, hypervolume, mean_of_independent, pick, t_interval
from afterword.types import Estimate


def test_only_who_is_beaten_is_dominated():
    points = [(0.9, 0.1), (0.5, 0.5), (0.1, 0.9), (0.5, 0.4), (0.4, 0.5), (0.0, 0.0)]
    assert dominated(points) == [False, False, False, True, True, True]


def test_equal_points_do_not_dominate_each_other():
    assert dominated([(0.5, 0.5), (0.5, 0.5)]) == [False, False]
    assert dominated([]) == []


def test_a_staircase_by_hand():
    # Strips from the right: 0.5 × 0.2, then to the height of 0.6 and of 0.8.
    points = [(0.5, 0.2), (0.3, 0.6), (0.1, 0.8)]
    assert hypervolume(points) == pytest.approx(0.5 * 0.2 + 0.3 * 0.4 + 0.1 * 0.2)


def test_a_point_not_above_the_reference_covers_nothing():
    assert hypervolume([], (0.0, 0.0)) == 0
    assert hypervolume([(0.9, 0.2), (0.1, 0.9)], (0.1, 0.2)) == 0
    assert hypervolume([(1.0, 1.0)]) == 1


def test_the_hypervolume_is_the_share_of_a_fine_grid_that_is_dominated():
    draw = random.Random(3)
    points = [(draw.randrange(41) / 40, draw.randrange(41) / 40) for _ in range(6)]
    centres = [((i + 0.5) / 40, (j + 0.5) / 40) for i in range(40) for j in range(40)]
    covered = sum(any(x <= a and y <= b for a, b in points) for x, y in centres)
    assert hypervolume(points) == pytest.approx(covered / 1600)


def test_order_and_dominated_points_do_not_matter():
    points = [(0.5, 0.2), (0.3, 0.6), (0.1, 0.8)]
    assert hypervolume(points) == pytest.approx(hypervolume([*points[::-1], (0.2, 0.5), (0.3, 0.6)]))


def test_one_run_has_no_interval_and_no_interval_leaves_what_is_possible():
    assert t_interval([0.4]) == Estimate(0.4, None)
    assert t_interval([0.5, 0.5]) == Estimate(0.5, (0.5, 0.5))
    assert t_interval([0.1, 0.9]).interval_95 == (0.0, 1.0)


def test_a_skill_without_an_interval_leaves_the_mean_without_one():
    assert mean_of_independent([Estimate(0.2, (0.1, 0.3)), Estimate(0.4, None)]) == Estimate(pytest.approx(0.3), None)


def test_the_pick_learns_most_among_those_that_keep_every_skill():
    kept = Candidate(1e-5, 0.3, {"reading": 1.0, "arithmetic": -2.0})
    on_the_limit = Candidate(2e-5, 0.4, {"reading": 100 * (0.7 - 0.65), "arithmetic": 0.0})
    one_lost = Candidate(4e-5, 0.9, {"reading": 0.0, "arithmetic": 5.1})
    assert pick([kept, on_the_limit, one_lost], 5.0) is on_the_limit
    assert pick([one_lost], 5.0) is None
    assert pick([], 5.0) is None


def test_of_equals_the_lower_rate_is_picked():
    low, high = (Candidate(rate, 0.4, {"reading": 0.0}) for rate in (1e-5, 2e-5))
    assert pick([high, low], 5.0) is low
