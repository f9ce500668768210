"""No conclusion without an interval, and none against it."""

import dataclasses

import pytest

from afterword.report.readings import by_task, headline, read_change, rows_of
from afterword.types import Estimate, Score

SCORE = Score(task="drift/general", metric="bits_per_byte", version=1, n=9, better="lower")


def _with_change(value, interval, better="lower"):
    return dataclasses.replace(SCORE, change=Estimate(value, interval), better=better)


@pytest.mark.parametrize(
    ("interval", "better", "words", "tone"),
    [
        ((-0.4, -0.2), "lower", "falls, which is better", "better"),
        ((-0.4, -0.2), "higher", "falls, which is worse", "worse"),
        ((0.2, 0.4), "higher", "rises, which is better", "better"),
        ((0.2, 0.4), "lower", "rises, which is worse", "worse"),
        ((0.2, 0.4), None, "rises clearly", "none"),
        ((-0.1, 0.4), "lower", "no clear change: the interval includes 0", "unclear"),
        ((0.0, 0.4), "lower", "no clear change: the interval includes 0", "unclear"),
        (None, "lower", "no interval, so no conclusion", "none"),
    ],
)
def test_the_interval_alone_decides(interval, better, words, tone):
    reading = read_change(_with_change(0.3, interval, better))
    assert (reading.words, reading.tone) == (words, tone)


def test_what_was_measured_on_one_side_is_not_judged():
    one = Estimate(1.0, (0.9, 1.1))
    assert read_change(SCORE).words == "not measured"
    assert read_change(dataclasses.replace(SCORE, before=one)).words == "measured on the base model only"
    assert read_change(dataclasses.replace(SCORE, after=one)).words == "measured after adaptation only"
    both = read_change(dataclasses.replace(SCORE, before=one, after=one))
    assert both.words == "no paired change, so no conclusion"


def test_unknown_names_stay_as_they_are():
    (row,) = rows_of([dataclasses.replace(SCORE, task="new/task", metric="odd_thing")])
    assert (row.task, row.metric, row.unit) == ("new/task", "odd_thing", "")


def test_the_headline_sorts_learning_from_loss_and_counts_the_rest():
    benchmarks = [dataclasses.replace(SCORE, task=f"tasks/{i}", metric="acc") for i in range(9)]
    second = dataclasses.replace(SCORE, task="tasks/0", metric="acc_norm")
    quiz = dataclasses.replace(SCORE, task="questions/closed_book", metric="exact_match_frac")
    learned, lost = headline(rows_of([SCORE, *benchmarks, second, quiz]))
    assert [row.score.task for row in learned.rows] == ["questions/closed_book"]
    assert lost.rows[0].score == SCORE
    assert (len(lost.rows), lost.left_out) == (6, 4)
    assert learned.summary == "Of 1 measure: 1 not judged."


def test_a_loss_is_set_against_reading_the_document():
    nll = dataclasses.replace(
        SCORE, task="learning/held_out", metric="target_nll_nats", before=Estimate(2.5, None)
    )
    aim = dataclasses.replace(nll, metric="target_nll_with_context_nats", before=Estimate(1.25, None))
    assert rows_of([nll, aim])[0].aim == "1.250"


def test_tasks_keep_the_order_they_were_measured_in():
    rows = rows_of([dataclasses.replace(SCORE, task=task) for task in ("tasks/z", "tasks/a", "tasks/z")])
    assert [(task, len(group)) for task, group in by_task(rows).items()] == [("z", 2), ("a", 1)]
