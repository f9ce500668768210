"""What was measured of a sequence → sequence.json: the matrix of every quantity, transfer, and retention on the way.

Everything here follows from files: the stages' run folders, and a file of measurements for every model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from afterword.evaluation.intervals import estimate
from afterword.evaluation.measures import MEASURES
from afterword.sequence.measured import LEARNING, METRICS
from afterword.sequence.stages import Stage, Taught
from afterword.sequence.transfer import Values, transfer
from afterword.settings.sequence import SequenceSettings
from afterword.storage.records import read_record
from afterword.training import RunFolder
from afterword.types import Estimate

FIRST = "first"
"""The first model, by which its measurements and its row are named."""
_CEILING = "target_nll_with_context_nats"
"""Of the first model: what reading the document gives."""
_USED = ("method", "learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "use_peft", "seed")
Row = Mapping[str, Any]


def summary_of(
    settings: SequenceSettings, stages: Sequence[Stage], corpora: Sequence[Taught], rows: Sequence[Row], command: str
) -> dict[str, Any]:
    """The content of sequence.json; `rows` are the measurements of the first model and of the stages that ended."""
    about = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
    notes = [note for row in rows for corpus in row["corpora"].values() for note in corpus["notes"]]
    notes += [note for row in rows for note in row.get("retention", {}).get("notes", ())]
    return {
        **about,
        "settings": settings.model_dump(mode="json"),
        "held_to": settings.reference or settings.model_name_or_path,
        "corpora": [_corpus(corpus) for corpus in corpora],
        "stages": [_stage(stage) for stage in stages],
        "models": [FIRST, *(str(stage) for stage in stages)][: len(rows)],
        "measures": [
            matrix
            for task in LEARNING
            for metric in METRICS
            if metric != _CEILING and (matrix := _matrix(task, metric, corpora, rows))
        ],
        "retention": _retention(rows[1:]),
        "notes": list(dict.fromkeys(notes)),
    }


def _corpus(corpus: Taught) -> dict[str, Any]:
    counts = {"documents": len(corpus.documents), "questions": len(corpus.questions)}
    held_out = len(corpus.held_out) if corpus.held_out else 0
    return {"name": corpus.name, **counts, "held_out": held_out, "content_sha256": corpus.content_sha256}


def _stage(stage: Stage) -> dict[str, Any]:
    """A stage as far as it has come, with the settings that its run used."""
    run, about = RunFolder(stage.folder), {"number": stage.number, "name": stage.name, "folder": str(stage)}
    about |= {"begins_with": stage.settings.model_name_or_path, "held_to": stage.settings.held_to}
    if not run.exists():
        return {**about, "status": "not begun", "settings": {}, "steps": None, "seconds": None}
    state, used = run.state(), read_record(stage.folder / "config.yaml")
    ended = {name: state.get(name) for name in ("steps", "seconds")}
    return {**about, "status": state.get("status"), "settings": {name: used.get(name) for name in _USED}, **ended}


def _matrix(task: str, metric: str, corpora: Sequence[Taught], rows: Sequence[Row]) -> dict[str, Any] | None:
    """A quantity of every model on the corpora that have it; None where none has."""
    names = [corpus.name for corpus in corpora if _values(rows[0], corpus.name, task, metric) is not None]
    if not names:
        return None
    taught_at = [number for number, corpus in enumerate(corpora, start=1) if corpus.name in names]
    values = [[_values(row, name, task, metric) for name in names] for row in rows]
    declared = MEASURES[task]
    better = next(each.better for each in declared.metrics if each.name == metric)
    found = transfer(values, taught_at, lower_is_better=better == "lower")
    ceilings = [_values(rows[0], name, task, _CEILING) if better == "lower" else None for name in names]
    return {
        "task": task,
        "metric": metric,
        "better": better,
        "shown": asdict(declared.shown_as(metric)),
        "corpora": names,
        "taught_at": taught_at,
        "n": [len(own) for own in values[0] if own is not None],
        "cells": [[_json(cell) for cell in row] for row in found.cells],
        "with_document": [None if own is None else _json(estimate(own)) for own in ceilings],
        **{part: [_json(each) for each in getattr(found, part)] for part in ("learned", "forward", "backward")},
        "means": {name: _json(mean) for name, mean in found.means.items()},
    }


def _values(row: Row, corpus: str, task: str, metric: str) -> Values | None:
    return row["corpora"].get(corpus, {}).get("values", {}).get(task, {}).get(metric)


def _retention(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every score of what the first model could do, and of drift, after each stage beside before."""
    found = dict[tuple[str, str], dict[str, Any]]()
    for number, row in enumerate(rows):
        for score in row.get("retention", {}).get("scores", ()):
            named = {name: score[name] for name in ("task", "metric", "better", "n", "shown")}
            empty = {**named, "first": score["before"], "stages": [None] * len(rows)}
            own = found.setdefault((score["task"], score["metric"]), empty)
            own["stages"][number] = {"after": score["after"], "change": score["change"]}
    return list(found.values())


def _json(found: Estimate | None) -> dict[str, Any] | None:
    interval = found and found.interval_95
    return found and {"value": found.value, "interval_95": list(interval) if interval else None}
