"""Scores in words and digits. The one rule: no conclusion without an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from afterword.report import labels, numbers
from afterword.types import Estimate, Score

CONTEXT_LOSS = "target_nll_with_context_nats"
HEADLINE_ROWS = 6


@dataclass(frozen=True, slots=True)
class Reading:
    """What a change means in plain words. `tone`: better, worse, unclear, or none where nothing is judged."""

    words: str
    tone: str


@dataclass(frozen=True, slots=True)
class Row:
    """One score, ready to print."""

    score: Score
    task: str
    metric: str
    unit: str
    before: str
    before_interval: str
    after: str
    after_interval: str
    change: str
    change_interval: str
    reading: Reading
    aim: str
    """The base model's value with the document in context, where that is what the score strives for."""


@dataclass(frozen=True, slots=True)
class Column:
    """One half of the headline."""

    heading: str
    summary: str
    rows: tuple[Row, ...]
    left_out: int


def read_change(score: Score) -> Reading:
    """Whether the score moved, by its paired 95 % interval alone."""
    if score.change is None:
        return Reading(_unpaired(score), "none")
    if score.change.interval_95 is None:
        return Reading("no interval, so no conclusion", "none")
    low, high = score.change.interval_95
    if low <= 0 <= high:
        return Reading("no clear change: the interval includes 0", "unclear")
    direction, side = ("rises", "higher") if low > 0 else ("falls", "lower")
    if score.better not in ("lower", "higher"):
        return Reading(f"{direction} clearly", "none")
    tone = "better" if score.better == side else "worse"
    return Reading(f"{direction}, which is {tone}", tone)


def _unpaired(score: Score) -> str:
    if score.before is None and score.after is None:
        return "not measured"
    if score.before is None:
        return "measured after adaptation only"
    if score.after is None:
        return "measured on the base model only"
    return "no paired change, so no conclusion"


def rows_of(scores: Sequence[Score]) -> tuple[Row, ...]:
    """Every score as a row, in the order measured."""
    aims = {score.task: score.before for score in scores if score.metric == CONTEXT_LOSS}
    return tuple(_row(score, aims.get(score.task)) for score in scores)


def _row(score: Score, aim: Estimate | None) -> Row:
    metric = score.metric
    places = numbers.places_of(metric, score.before, score.after)
    change_places = numbers.places_of(metric, score.change)
    return Row(
        score=score,
        task=labels.task_label(score.task),
        metric=labels.metric_label(metric),
        unit=labels.unit(metric),
        before=numbers.value(metric, _mean(score.before), places),
        before_interval=numbers.interval(metric, score.before, places),
        after=numbers.value(metric, _mean(score.after), places),
        after_interval=numbers.interval(metric, score.after, places),
        change=numbers.change(metric, _mean(score.change), change_places),
        change_interval=numbers.interval(metric, score.change, change_places),
        reading=read_change(score),
        aim=numbers.value(metric, _mean(aim), places) if aim and metric == "target_nll_nats" else "",
    )


def _mean(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def headline(rows: Sequence[Row]) -> tuple[Column, Column]:
    """What was learned and what was lost: the few scores that a reader needs first."""
    by_key = {(row.score.task, row.score.metric): row for row in rows}
    learned = [by_key[key] for key in labels.LEARNED if key in by_key]
    lost = [by_key[key] for key in labels.LOST if key in by_key] + _first_of_each_benchmark(rows)
    return _column("What was learned", learned), _column("What was lost", lost)


def by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows under their tasks' labels, tasks in the order first measured."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.task, []).append(row)
    return groups


def _first_of_each_benchmark(rows: Iterable[Row]) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        if row.score.task.startswith("tasks/"):
            first.setdefault(row.score.task, row)
    return list(first.values())


def _column(heading: str, rows: Sequence[Row]) -> Column:
    return Column(heading, _tally(rows), tuple(rows[:HEADLINE_ROWS]), len(rows[HEADLINE_ROWS:]))


def _tally(rows: Sequence[Row]) -> str:
    words = {
        "better": "clearly better",
        "worse": "clearly worse",
        "unclear": "without clear change",
        "none": "not judged",
    }
    tones = [row.reading.tone for row in rows]
    parts = [f"{tones.count(tone)} {text}" for tone, text in words.items() if tone in tones]
    noun = "measure" if len(rows) == 1 else "measures"
    return f"Of {len(rows)} {noun}: {', '.join(parts)}." if rows else ""
