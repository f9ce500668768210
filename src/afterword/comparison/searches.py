"""Arms that train nothing: the base model, asked with what retrieval finds before each question.

The one rule: such an arm has the base's weights. What it was to learn it looks up; what it is to keep is the base's, as
nothing is looked up for that. It pays with every question, where training pays once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from afterword.comparison.grid import Contents, by_content, later_scorers
from afterword.corpus import CorpusOptions
from afterword.evaluation.measure import VERSIONS
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings, arm_folder, retrieval_arms, underscored
from afterword.settings.evaluate import RETRIEVAL, EvaluateSettings
from afterword.storage.hashes import json_sha256

Row = Mapping[str, Any]
NO_TRAINING = 0.0
"""The learning rate of an arm that trains nothing."""
_READ_LIKE = ("max_length", "language", *(field.name for field in fields(CorpusOptions)))
"""Settings of a run by which its documents are read and its model is asked."""


@dataclass(frozen=True)
class Search:
    """An arm that trains nothing, which is one cell."""

    arm: str
    retrieve: int
    """Excerpts before each question."""
    folder: Path
    fingerprint: str
    configuration: str
    settings: Mapping[str, Any]
    """How it retrieves."""

    @property
    def about(self) -> dict[str, Any]:
        """What grid and row say of it."""
        return {"arm": self.arm, "learning_rate": NO_TRAINING, "seed": 0, "fingerprint": self.fingerprint}

    def is_done(self, rows: Mapping[str, Row]) -> bool:
        """Whether its row is there, of the base's configuration as it is now."""
        row = rows.get(self.fingerprint)
        return row is not None and row.get("configuration_sha256", self.configuration) == self.configuration


def searches_of(settings: CompareSettings, contents: Contents, documents: str, configuration: str) -> list[Search]:
    """The arms that train nothing. `documents` is the content of what is searched."""
    found = list[Search]()
    for arm, count in retrieval_arms(settings.retrieval).items():
        given = read_settings({**underscored(settings.evaluate), "retrieve": count}, EvaluateSettings)
        how = {name: given.model_dump(mode="json")[name] for name in RETRIEVAL}
        followed = {
            "retrieval": by_content(how),
            "searched": documents,
            "like": {name: value for name, value in like(settings).items() if name in ("max_length", "language")},
            "model": contents.model,
            "suite": contents.suite,
            "evaluate": {name: value for name, value in contents.evaluate.items() if name not in RETRIEVAL},
        }
        versions = {
            "retrieval": VERSIONS["retrieval"],
            **later_scorers(with_tasks=bool(contents.evaluate.get("tasks"))),
        }
        fingerprint = json_sha256({**followed, "scorers": versions})
        folder = Path(settings.output_dir) / "cells" / arm_folder(arm)
        found.append(Search(arm, count, folder, fingerprint, configuration, how))
    return found


def like(settings: CompareSettings) -> dict[str, Any]:
    """How every cell of the comparison reads its documents, for a model that was not trained on them."""
    cell = settings.cell_settings({})
    return {"documents": cell["documents"], **{name: cell[name] for name in _READ_LIKE if name in cell}}


def row_of(search: Search, measured: Mapping[str, Any], seconds: float, environment: Mapping[str, Any]) -> Row:
    """The row of an arm that trains nothing, from the base's scores alone and with what was found."""
    nothing = {"epochs": 0.0, "steps": 0, "documents": 0, "student_tokens": 0, "teacher_tokens": 0, "flops": 0.0}
    cost = {**nothing, "train_seconds": 0.0, "peak_gib": None, "evaluate_seconds": seconds}
    about = {"configuration_sha256": search.configuration, "settings": dict(search.settings)}
    scores = as_an_arm(measured["scores"])
    ended = {"scores": scores, "notes": measured["notes"], "cost": cost, "environment": dict(environment)}
    return {"format": 1, "status": "complete", **search.about, **about, **ended}


def as_an_arm(scores: Sequence[Row]) -> list[dict[str, Any]]:
    """Scores of the base as those of an arm: before without, after with what was found for each question to learn.

    What is to be kept is the same on both sides. The scores that were measured behind what was found stay beside them.
    """
    found = {(score["task"], score["metric"]): score["after"] for score in scores}
    return [score if is_retrieved(score["task"]) else _sides(score, found) for score in map(dict, scores)]


def _sides(score: dict[str, Any], found: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    split, _, rest = score["task"].partition("/")
    with_it = found.get((f"{split}/learning_retrieved/{rest.removeprefix('learning/')}", score["metric"]))
    after = with_it if with_it and rest.startswith("learning/") else score["after"]
    return {**score, "before": score["after"], "after": after, "change": None}


def is_retrieved(task: str) -> bool:
    """Whether a score was measured behind what retrieval found.

    >>> is_retrieved("test/learning_retrieved/direct"), is_retrieved("test/learning/direct")
    (True, False)
    """
    return "_retrieved" in task
