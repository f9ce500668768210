"""One model of a sequence on every corpus, value by value, and against the first model; kept, so as not to do it again.

The one rule: every model of a sequence is measured alone and on the same questions and sentences in the same order, so
that any two of them can be compared question by question.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterword import evaluation, models
from afterword.corpus import refuse_missing
from afterword.errors import AfterwordError, ConfigError, DataError
from afterword.evaluation import losses
from afterword.evaluation.measure import VERSIONS, Inputs, Models
from afterword.evaluation.measures import MEASURES
from afterword.evaluation.pair import load_models
from afterword.evaluation.suites import find_suite
from afterword.evaluation.task_loading import load_tasks
from afterword.evaluation.tasks import asking_of
from afterword.sequence.stages import Taught
from afterword.settings.adapt import read_settings
from afterword.settings.base import underscored
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.sequence import SequenceSettings
from afterword.storage.atomic import replace_file
from afterword.storage.hashes import json_sha256, path_sha256
from afterword.storage.records import read_record

MEASURED = "measured"
"""Folder of a file for every model."""
LEARNING = ("questions/closed_book", "learning/held_out", "learning/trained")
"""Measures that every model is put to on every corpus that has what they need."""
METRICS = ("choice_correct_frac", "said_frac", "target_nll_nats", "target_nll_with_context_nats")
"""What is kept of them."""
_OF_RETENTION = {"suite", "general", "tasks", "tasks_path", *EvaluateSettings.of_panel("Tasks")}
"""Settings of evaluate that say nothing of how a corpus is read."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Measuring:
    """What models are measured on."""

    corpora: tuple[Taught, ...]
    held_to: str
    """The model that what is lost is measured against."""
    retention: Mapping[str, Any]
    """Of evaluate: suite, tasks, general text and what else was set."""

    @property
    def settings(self) -> EvaluateSettings:
        """How the corpora are read by a model."""
        of_corpora = {n: value for n, value in self.retention.items() if n not in _OF_RETENTION}
        return read_settings(of_corpora, EvaluateSettings)


def retention_problems(settings: SequenceSettings) -> Iterator[str]:
    """Why what must be kept could not be measured, before anything is trained."""
    try:
        if settings.suite:
            find_suite(settings.suite)
    except AfterwordError as error:
        yield f"suite: {error}"
    try:
        if settings.tasks:
            asked = read_settings({**underscored(settings.evaluate), "tasks": settings.tasks}, EvaluateSettings)
            load_tasks(settings.tasks, tasks_path=settings.tasks_path, asking=asking_of(asked))
    except ConfigError as error:
        yield from error.problems
    try:
        refuse_missing(settings.general)
    except DataError as error:
        yield f"general: {error}"


def measuring_of(settings: SequenceSettings, corpora: Sequence[Taught]) -> Measuring:
    """What the settings ask for."""
    given = {name: getattr(settings, name) for name in ("suite", "tasks", "tasks_path", "general")}
    kept = {"suite_cache": str(Path(settings.output_dir) / MEASURED / "reference")}
    asked = {**kept, **underscored(settings.evaluate), **{name: value for name, value in given.items() if value}}
    return Measuring(tuple(corpora), settings.reference or settings.model_name_or_path, asked)


def measured_file(output: Path, name: str) -> Path:
    """Where the measurements of a model are kept."""
    return output / MEASURED / f"{name}.json"


def measure(model: str, file: Path, on: Measuring, say: Callable[[str], None], *, adapted: bool) -> Row:
    """What the file holds of a model once all that it lacks is measured: `corpora`, and of one `adapted` `retention`.

    What was measured of another content, by other settings or by another version is measured again.
    """
    row = read_record(file, "Delete it, and it is measured again.") if file.is_file() else {"format": 1, "corpora": {}}
    keys = {corpus.name: _key(corpus, on.settings) for corpus in on.corpora}
    missing = [each for each in on.corpora if row["corpora"].get(each.name, {}).get("key") != keys[each.name]]
    if missing:
        loaded = load_models(model, on.settings)
        for corpus in missing:
            say(f"measures {corpus.name}")
            found = _on_corpus(loaded, model, corpus, on.settings)
            row["corpora"][corpus.name] = {"key": keys[corpus.name], **found}
            _keep(file, row)
        del loaded
        models.free_memory()
    if adapted and row.get("retention", {}).get("key") != (key := _retention_key(on)):
        say("measures what was lost")
        found = evaluation.evaluate(model, reference=on.held_to, **on.retention)
        scores = [asdict(score) for score in found.scores if not score.task.startswith("learning/")]
        row["retention"] = {"key": key, "scores": scores, "notes": list(found.notes)}
        _keep(file, row)
        models.free_memory()
    return row


def _on_corpus(loaded: Models, model: str, corpus: Taught, settings: EvaluateSettings) -> Row:
    """By task and metric, a value for every question or document; and what could not be measured."""
    documents = {"documents": corpus.documents} | ({"held_out": corpus.held_out} if corpus.held_out else {})
    questions = losses.drawn(corpus.questions, settings.max_questions, settings.seed)
    inputs = Inputs(model, settings, documents, questions)
    values, notes = dict[str, dict[str, list[float]]](), list[str]()
    for task in LEARNING:
        declared = MEASURES[task]
        if not all(inputs.has(need) for need in declared.needs):
            continue
        try:
            found = declared.measure(loaded, inputs)
        except DataError as error:  # No document has a second sentence: there may be questions all the same.
            notes.append(f"{corpus.name}: {error}")
            continue
        notes += [f"{corpus.name}: {note}" for note in found.notes]
        # Of a model alone some measures give one side, and some the other.
        own = {each.metric: each.after if each.before is None else each.before for each in found.values}
        kept = {name: np.asarray(own[name], np.float64).tolist() for name in METRICS if own.get(name) is not None}
        # A question too long to be asked leaves no value.
        values[task] = {name: found for name, found in kept.items() if found}
    return {"values": {task: found for task, found in values.items() if found}, "notes": notes}


def _key(corpus: Taught, settings: EvaluateSettings) -> str:
    how = settings.model_dump(
        mode="json", exclude={"suite_cache", "documents", "held_out", "models_at_once", "device_map"}
    )
    return json_sha256([corpus.content_sha256, how, VERSIONS])


def _retention_key(on: Measuring) -> str:
    """Files among the settings count by their content."""
    named = {name: value for name, value in on.retention.items() if name != "suite_cache"}
    texts = [text for value in named.values() for text in (value if isinstance(value, list | tuple) else [value])]
    files = [path_sha256(Path(text)) for text in texts if isinstance(text, str) and text and Path(text).exists()]
    return json_sha256([named, files, VERSIONS])


def _keep(file: Path, row: Row) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps(row, indent=1, ensure_ascii=False))
