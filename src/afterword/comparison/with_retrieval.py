"""What retrieval adds to a comparison: what a question costs, when training has paid, and both together.

Reads rows and nothing else. All of it is on items of the split that is shown, and on those to be learned but for what
looking up for everything keeps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from afterword.comparison.frontier import mean_of_independent, t_interval
from afterword.comparison.searches import NO_TRAINING
from afterword.types import Estimate

Row = Mapping[str, Any]
Pair = tuple[Row, Row]
"""A cell of the grid, and its row."""
_COSTS = {"prompt_tokens": "prompt_tokens", "gflops": "answer_gflops"}


def retrieval_summary(pairs: Sequence[Pair], split: str | None, metrics: Mapping[str, str]) -> dict[str, Any] | None:
    """Of the finished cells; None where nothing was retrieved. `metrics` are those of learning and of retention.

    `questions`: what a question costs without retrieval and with it, for each arm that trains nothing, and what is kept
    where a server looks up for everything. `paid_after`:
    after how many questions training has cost fewer FLOPs than retrieving for each. `together`: what arms know with
    what was found before the question, against the base with the same, and against themselves without it.
    """
    searches = [pair for pair in pairs if pair[0]["learning_rate"] == NO_TRAINING]
    trained = [pair for pair in pairs if pair[0]["learning_rate"] != NO_TRAINING]
    questions = [_question(cell, row, split, metrics["retention"]) for cell, row in searches if split]
    together = _together(trained, split, metrics["learning"]) if split else []
    if not questions and not together:
        return None
    return {"questions": questions, "paid_after": _paid_after(trained, questions), "together": together}


def _question(cell: Row, row: Row, split: str, kept: str) -> dict[str, Any]:
    """What a question to be learned costs, without and with what is found."""
    values = {(s["task"], s["metric"]): s["after"] or s["before"] for s in row["scores"]}
    tasks = {"alone": (f"{split}/learning", "suite"), "retrieved": (f"{split}/learning_retrieved", "suite_retrieved")}
    sides = {
        side: {name: _value(values, task, metric) for name, metric in _COSTS.items()}
        | {"seconds": _value(values, whole, "answer_seconds")}
        for side, (task, whole) in tasks.items()
    }
    found = _value(values, f"{split}/learning_retrieved", "answer_found_frac")
    index = _value(values, "suite_retrieved", "index_seconds")
    always = _of(row["scores"], f"{split}/retention_retrieved/", kept)
    more = {"answer_found_frac": found, "index_seconds": index}
    return {"arm": cell["arm"], **sides, **more, "kept_if_always": _json(_mean(always, "after")) if always else None}


def _value(values: Mapping[tuple[str, str], Any], task: str, metric: str) -> float | None:
    found = values.get((task, metric))
    return found["value"] if found else None


def _paid_after(trained: Sequence[Pair], questions: Sequence[Row]) -> list[dict[str, Any]]:
    """For each arm that trains, its mean FLOPs, and those over what retrieval adds to a question, for each such arm."""
    flops: dict[str, list[float]] = {}
    for cell, row in trained:
        flops.setdefault(cell["arm"], []).append(row["cost"]["flops"])
    means = {arm: math.fsum(each) / len(each) for arm, each in flops.items()}
    added = {q["arm"]: _added_flops(q) for q in questions}
    return [
        {
            "arm": arm,
            "flops": mean,
            "questions": {name: math.ceil(mean / more) for name, more in added.items() if more and more > 0},
        }
        for arm, mean in means.items()
        if added
    ]


def _added_flops(question: Row) -> float | None:
    alone, retrieved = question["alone"]["gflops"], question["retrieved"]["gflops"]
    return None if alone is None or retrieved is None else 1e9 * (retrieved - alone)


def _together(trained: Sequence[Pair], split: str, metric: str) -> list[dict[str, Any]]:
    """A row for each arm and rate that was also asked with what was found."""
    groups: dict[tuple[str, float], list[dict[str, Estimate]]] = {}
    for cell, row in trained:
        if measured := _means(row["scores"], split, metric):
            groups.setdefault((cell["arm"], cell["learning_rate"]), []).append(measured)
    return [
        {"arm": arm, "learning_rate": rate, "seeds": len(each)} | {name: _over(each, name) for name in each[0]}
        for (arm, rate), each in sorted(groups.items())
    ]


def _means(scores: Sequence[Row], split: str, metric: str) -> dict[str, Estimate] | None:
    """Of one cell, over the skills: base and cell with what was found, the paired change, and the cell alone."""
    with_it = _of(scores, f"{split}/learning_retrieved/", metric)
    alone = _of(scores, f"{split}/learning/", metric)
    if not with_it or not alone or not all(score["before"] and score["change"] for score in with_it):
        return None
    return {
        "base_retrieved": _mean(with_it, "before"),
        "retrieved": _mean(with_it, "after"),
        "change": _mean(with_it, "change", low=-1.0),
        "alone": _mean(alone, "after"),
    }


def _of(scores: Sequence[Row], beginning: str, metric: str) -> list[Row]:
    """Those that were measured: of prompts that did not fit there is a score without a value."""
    found = [score for score in scores if score["task"].startswith(beginning) and score["metric"] == metric]
    return [score for score in found if score["after"]]


def _mean(scores: Sequence[Row], side: str, *, low: float = 0.0) -> Estimate:
    estimates = [Estimate(s[side]["value"], s[side]["interval_95"] and tuple(s[side]["interval_95"])) for s in scores]
    return mean_of_independent(estimates, low=low)


def _over(cells: Sequence[Mapping[str, Estimate]], name: str) -> dict[str, Any]:
    """Over seeds where there are two or more, over items where there is one."""
    low = -1.0 if name == "change" else 0.0
    found = t_interval([cell[name].value for cell in cells], low=low) if len(cells) > 1 else cells[0][name]
    return _json(found)


def _json(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval_95": estimate.interval_95 and list(estimate.interval_95)}
