"""No conclusion without an interval, and none against it."""

import dataclasses

import pytest

from afterword.report.wording import grouped, headline, read_change, rows_of
from afterword.types import Score

SCORE = dataclasses.asdict(Score(task="drift/general", metric="bits_per_byte", version=1, n=9, better="lower"))


def _estimate(value, interval=None):
    return {"value": value, "interval_95": interval}


def _with_change(value, interval, better="lower"):
    return SCORE | {"change": _estimate(value, interval), "better": better}


@pytest.mark.parametrize(
    ("interval", "better", "words", "tone"),
    [
        ((-0.4, -0.2), "lower", "falls, which is better", "better"),
        ((-0.4, -0.2), "higher", "falls, which is worse", "worse"),
        ((0.2, 0.4), "higher", "rises, which is better", "better"),
        ((0.2, 0.4), "lower", "rises, which is worse", "worse"),
        ((0.2, 0.4), None, "rises", "none"),
        ((-0.1, 0.4), "lower", "no clear change: the interval includes 0", "unclear"),
        ((0.0, 0.4), "lower", "no clear change: the interval includes 0", "unclear"),
        (None, "lower", "no interval, so no conclusion", "none"),
    ],
)
def test_the_interval_alone_decides(interval, better, words, tone):
    reading = read_change(_with_change(0.3, interval, better))
    assert (reading.words, reading.tone) == (words, tone)


@pytest.mark.parametrize(
    ("metric", "value", "words", "tone"),
    [
        ("said_frac", 0.009, "rises, too little to notice", "slight"),
        ("said_frac", 0.01, "rises, which is better", "better"),
        ("target_nll_nats", -0.019, "falls, too little to notice", "slight"),
        ("target_nll_nats", -0.02, "falls, which is worse", "worse"),
        ("bits_per_byte", 0.009, "rises, too little to notice", "slight"),
        ("acc,none", 0.0001, "rises, which is better", "better"),  # of a foreign quantity nobody knows what is noticed
    ],
)
def test_what_nobody_notices_is_neither_better_nor_worse(metric, value, words, tone):
    score = _with_change(value, sorted([0.9 * value, 1.1 * value]), "higher") | {"metric": metric}
    assert read_change(score) == (words, tone)


def test_beside_what_reading_gives_a_change_is_judged_by_its_share():
    """Five per cent of the way from 2.5 to 0.5 nats are 0.1."""
    for value, tone in ((-0.09, "slight"), (-0.11, "better")):
        score = _with_change(value, [value - 0.01, value + 0.01]) | {"before": _estimate(2.5)}
        assert read_change(score, 0.5).tone == tone


def test_what_was_measured_on_one_side_is_not_judged():
    one = _estimate(1.0, [0.9, 1.1])
    assert read_change(SCORE).words == "not measured"
    assert read_change(SCORE | {"before": one}).words == "measured on the base model only"
    assert read_change(SCORE | {"after": one}).words == "measured after adaptation only"
    both = read_change(SCORE | {"before": one, "after": one})
    assert both.words == "no paired change, so no conclusion"


def test_unknown_names_stay_as_they_are():
    (row,) = rows_of([SCORE | {"task": "new/task", "metric": "odd_thing"}])
    assert (row["task"], row["metric"], row["unit"]) == ("new/task", "odd_thing", "")


def test_the_headline_sorts_learning_from_loss_and_takes_one_score_of_a_benchmark():
    benchmarks = [SCORE | {"task": f"tasks/{i}", "metric": "acc"} for i in range(9)]
    second = SCORE | {"task": "tasks/0", "metric": "acc_norm"}
    quiz = SCORE | {"task": "questions/closed_book", "metric": "said_frac"}
    columns = headline(rows_of([SCORE, *benchmarks, second, quiz]))
    assert [row["score"] for row in columns["What was learned"]] == [quiz]
    assert [row["score"] for row in columns["What was lost"]] == [SCORE, *benchmarks]


def test_a_loss_is_set_against_reading_the_document():
    nll = SCORE | {"task": "learning/held_out", "metric": "target_nll_nats", "before": _estimate(2.5)}
    aim = nll | {"metric": "target_nll_with_context_nats", "before": _estimate(1.25)}
    assert rows_of([nll, aim])[0]["aim"] == "1.250"


def test_an_answer_from_memory_is_set_against_an_answer_with_the_document():
    closed = SCORE | {"task": "questions/closed_book", "metric": "said_frac", "before": _estimate(0.1)}
    opened = closed | {"task": "questions/open_book", "before": _estimate(0.8)}
    (row, ceiling) = rows_of([closed, opened])
    assert (row["aim"], ceiling["aim"]) == ("80.0%", "")


def test_scores_that_differ_in_the_filter_alone_are_told_apart():
    filters = ("strict-match", "flexible-extract", "none", None)
    rows = rows_of([SCORE | {"metric": "exact_match", "details": {"filter": name}} for name in filters])
    labels = ["exact_match, strict-match", "exact_match, flexible-extract", "exact_match", "exact_match"]
    assert [row["metric"] for row in rows] == labels


def test_tasks_keep_the_order_they_were_measured_in():
    rows = rows_of([SCORE | {"task": task} for task in ("tasks/z", "tasks/a", "tasks/z")])
    assert [(task, len(group)) for task, group in grouped(rows, "task").items()] == [("z", 2), ("a", 1)]
