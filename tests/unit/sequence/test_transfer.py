"""Transfer by hand: what was learned, what came of it later, and in which direction better is."""

from __future__ import annotations

import pytest

from afterword.sequence.transfer import mean_of, transfer
from afterword.types import Estimate

ANSWERS = [
    # [models][corpora][questions]: right is 1.
    [[0, 0, 0, 1], [0, 0], [0, 0]],
    [[1, 1, 0, 1], [1, 0], [0, 0]],
    [[1, 0, 0, 1], [1, 1], [0, 0]],
    [[0, 0, 0, 1], [1, 1], [0, 1]],
]


def values(estimates):
    return [each and round(each.value, 6) for each in estimates]


def test_by_hand():
    found = transfer(ANSWERS, [1, 2, 3], lower_is_better=False)
    assert values(found.learned) == [0.5, 1.0, 0.5]
    assert values(found.forward) == [None, 0.5, 0.0]
    assert values(found.backward) == [-0.5, 0.0, None]
    assert {name: mean.value for name, mean in found.means.items()} == pytest.approx(
        {"end": (0.25 + 1 + 0.5) / 3, "learned": 2 / 3, "forward": 0.25, "backward": -0.25}
    )


def test_of_losses_falling_is_better():
    losses = [[[2.0, 2.5], [3.0, 3.0]], [[1.0, 1.0], [2.5, 3.0]], [[1.5, 1.0], [1.0, 1.5]]]
    found = transfer(losses, [1, 2], lower_is_better=True)
    assert values(found.learned) == [1.25, 1.75]
    assert values(found.forward) == [None, 0.25]
    assert values(found.backward) == [-0.25, None]


def test_changes_are_taken_question_by_question():
    # One question of four was forgotten: unpaired, the intervals of both models would overlap by far.
    before, after = [1, 1, 1, 1] * 10, [1, 1, 1, 0] * 10
    found = transfer([[[0] * 40, [0]], [before, [0]], [after, [1]]], [1, 2], lower_is_better=False)
    low, high = found.backward[0].interval_95
    assert low < -0.25 < high < 0


def test_a_sequence_that_has_not_ended_has_no_cell_for_what_is_not_taught():
    found = transfer(ANSWERS[:2], [1, 2, 3], lower_is_better=False)
    assert values(found.learned) == [0.5, None, None]
    assert values(found.forward) == [None, 0.5, None]
    assert values(found.backward) == [None, None, None]
    assert found.means["backward"] is None


def test_a_corpus_without_questions_moves_the_stage_of_the_others():
    # Only the second of two corpora has questions: its stage is still the second.
    found = transfer([[[0, 0]], [[1, 0]], [[1, 1]]], [2], lower_is_better=False)
    assert values(found.forward) == [0.5]
    assert values(found.learned) == [1.0]


def test_a_mean_has_no_interval_where_one_of_its_parts_has_none():
    assert mean_of([Estimate(0.5, (0.2, 0.6)), Estimate(0.3, None)]) == Estimate(0.4, None)
    assert mean_of([]) is None
