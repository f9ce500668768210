"""Scores in words and digits. The one rule: no conclusion without an interval, nor from one alone.

An interval that excludes 0 says that something moved; whether anybody notices follows from how far.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from afterword.report import display

Rows = list[dict[str, Any]]
NOTICEABLE = {"_frac": 0.01, "_nats": 0.02, "bits_per_byte": 0.01}
"""The smallest change that is more than a hair, by the end of a metric's name: a point, 2 % of perplexity."""
NOTICEABLE_SHARE = 0.05
"""The same as a share of what reading the document gives, where that is known."""


class Wording(NamedTuple):
    """What a change means in plain words. `tone`: better, worse, slight, unclear, or none where nothing is judged."""

    words: str
    tone: str


def read_change(score: display.Score, aim: float | None = None) -> Wording:
    """Whether the score moved, by its paired 95 % interval, and whether that is enough to be noticed.

    `aim` is the value that the base model has with the document before it, where the score strives for that.
    """
    if not score["change"]:
        return Wording(
            display.load_table("words.yaml")["unpaired"][bool(score["before"])][bool(score["after"])], "none"
        )
    if not score["change"]["interval_95"]:
        return Wording("no interval, so no conclusion", "none")
    low, high = score["change"]["interval_95"]
    if low <= 0 <= high:
        return Wording("no clear change: the interval includes 0", "unclear")
    direction, side = ("rises", "higher") if low > 0 else ("falls", "lower")
    if abs(score["change"]["value"]) < _noticeable(score, aim):
        return Wording(f"{direction}, too little to notice", "slight")
    if score["better"] not in ("lower", "higher"):
        return Wording(direction, "none")
    tone = "better" if score["better"] == side else "worse"
    return Wording(f"{direction}, which is {tone}", tone)


def _noticeable(score: display.Score, aim: float | None) -> float:
    if aim is not None and score["before"]:
        return NOTICEABLE_SHARE * abs(score["before"]["value"] - aim)
    return next((least for end, least in NOTICEABLE.items() if score["metric"].endswith(end)), 0.0)


def rows_of(scores: Sequence[display.Score]) -> Rows:
    """Every score as a row ready to print, in the order measured."""
    aims = {score["task"]: score["before"] for score in scores if score["metric"] == "target_nll_with_context_nats"}
    opened = {score["metric"]: score["before"] for score in scores if score["task"] == "questions/open_book"}
    return [_row(score, _aim(score, aims, opened)) for score in scores]


def _aim(
    score: display.Score,
    with_document: Mapping[str, display.Estimate | None],
    opened: Mapping[str, display.Estimate | None],
) -> display.Estimate | None:
    """The base model's value with the document before it, where the score strives for that."""
    if score["task"] == "questions/closed_book":
        return opened.get(score["metric"])
    if score["metric"] == "target_nll_nats":
        return with_document.get(score["task"])
    # A divergence from the model that reads the document strives for none.
    return {"value": 0.0, "interval_95": None} if score["metric"] == "kl_from_context_nats" else None


def _row(score: display.Score, aim: display.Estimate | None) -> dict[str, Any]:
    metric, shown = score["metric"], display.shown(score)
    places = display.places_of(metric, score["before"], score["after"])
    # lm-eval gives one metric several times, by how the answer is cut out of the text; "none" is the usual way.
    rule = score["details"].get("filter") or "none"
    return {
        "score": score,
        "n": display.counted(score),
        "shown": shown,
        "task": shown["task"],
        "metric": shown["metric"] + ("" if rule == "none" else f", {rule}"),
        "unit": shown["unit"],
        "meaning": shown["meaning"],
        "before": _printed(metric, score["before"], places, display.value),
        "after": _printed(metric, score["after"], places, display.value),
        "change": _printed(metric, score["change"], display.places_of(metric, score["change"]), display.change),
        "reading": read_change(score, aim["value"] if aim else None),
        "aim": display.value(metric, aim["value"], places) if aim and metric != "kl_from_context_nats" else "",
    }


def _printed(metric: str, estimate: display.Estimate | None, places: int, show: Callable[..., str]) -> dict[str, str]:
    mean = estimate["value"] if estimate else None
    return {"mean": show(metric, mean, places), "interval": display.interval(metric, estimate, places)}


def headline(rows: Rows) -> dict[str, Rows]:
    """What was learned and what was lost, by heading: the few scores that a reader needs first."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["shown"]["headline"] is not None:
            # Of a benchmark there are several metrics of one place, the one that it is known by first.
            first.setdefault((row["score"]["task"], row["shown"]["headline"]), row)
    ordered = sorted(first.values(), key=lambda row: row["shown"]["headline"])
    headings = display.load_table("words.yaml")["headings"].items()
    return {heading: [row for row in ordered if row["shown"]["shows"] in kinds] for heading, kinds in headings}


def grouped(rows: Iterable[dict[str, Any]], key: str) -> dict[Any, Rows]:
    """Rows by the value of a field, values in the order of their first row."""
    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
