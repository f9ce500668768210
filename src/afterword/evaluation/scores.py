"""`afterword evaluate`: what a run learned and what it lost, before and after, into scores.json."""

import json
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.data import WindowSettings, read_document
from afterword.errors import ConfigError, DataError
from afterword.evaluation import losses, questions, suites, tasks
from afterword.evaluation import suite_answers as answering
from afterword.models import base_of_adapter, generation, has_result, is_adapter, refuse_name, replace_file
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings
from afterword.storage.paths import at_home
from afterword.storage.records import read_record
from afterword.types import Score, Window


@dataclass(frozen=True)
class Scores:
    """Everything one evaluation measured."""

    model: str
    reference: str | None
    scores: list[Score] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    computed_in: dict[str, str] = field(default_factory=dict)
    """The precision that the weights of each model are stored in, and that of all products."""


def evaluate(model: str | Path, *, output_dir: str | Path | None = None, command: str = "", **what: Any) -> Scores:
    """Measure a run folder (against its base) or a model alone; see `EvaluateSettings` for what can be measured.

    Scores go to scores.json in `output_dir`, by default the run folder itself.
    """
    name, asked = at_home(str(model)), read_settings(what, EvaluateSettings)
    run = _run_settings(Path(name))
    folder = Path(at_home(str(output_dir))) if output_dir else Path(name) if run else None
    if folder and folder.is_file():
        raise ConfigError(f"output_dir: {str(folder)!r} is a file. Give a folder for scores.json.")
    settings = _completed(asked, name, run)
    for called in (name, settings.reference):
        refuse_name(called or name)
    result = Scores(name, settings.reference)
    with tempfile.TemporaryDirectory(prefix="afterword-evaluate-") as scratch:
        _measure(name, settings, _read(asked, run, Path(scratch)), result)
    if not result.scores:
        raise ConfigError("documents: nothing to measure. Give documents, questions, a suite, general text or tasks.")
    if folder:
        about = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
        scores = {**about, "settings": settings.model_dump(), **asdict(result)}
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))
    return result


def _run_settings(folder: Path) -> dict[str, Any]:
    """config.yaml of a run folder; nothing for a model alone."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    if not has_result(folder):
        raise ConfigError(f"RUN: {str(folder)!r} has no finished model. Run `afterword adapt` to its end first.")
    return read_record(path)


def _completed(asked: EvaluateSettings, name: str, run: dict[str, Any]) -> EvaluateSettings:
    """Fill in what the run folder knows: its base, its documents, its held-out documents."""
    base = base_of_adapter(name) if is_adapter(name) else None
    known = {"reference": run.get("model_name_or_path", base), "documents": tuple(run.get("documents", ()))}
    known |= {"held_out": tuple(run.get("eval_documents", ())), "max_length": run.get("max_length")}
    filled = {key: getattr(asked, key) or value for key, value in known.items()}
    return asked.model_copy(update={**filled, "language": run.get("language", asked.language)})


def _read(asked: EvaluateSettings, run: dict[str, Any], scratch: Path) -> dict[str, Corpus]:
    """Documents by part. Those of the run are read as it read them: the same columns, and no more of them."""
    own = {"documents": run.get("documents"), "held_out": run.get("eval_documents")}
    options = CorpusOptions.of(run)
    given = {part: list(getattr(asked, part)) for part in ("documents", "held_out", "general")}
    chosen = [(part, sources or own.get(part), None if sources else options) for part, sources in given.items()]
    return {part: read_corpus(files, cache_dir=scratch / part, options=how) for part, files, how in chosen if files}


def _measure(name: str, settings: EvaluateSettings, documents: dict[str, Corpus], result: Scores) -> None:
    asked = questions.load_questions(settings.questions) if settings.questions else ()
    suite = _suite(settings) if settings.suite else None
    models = losses.load_models(name, settings)
    result.computed_in.update(losses.computed_in(models, name, settings.reference))
    for part, task in (("documents", "learning/trained"), ("held_out", "learning/held_out")):
        if part in documents:
            result.scores.extend(_learning(models, documents[part], task, settings))
    if asked:
        drawn = _drawn(asked, settings.max_questions, settings.seed)
        _ask(models, drawn, documents.get("documents"), settings.question_instruction, result)
    if suite:
        _answer(models, suite, settings, result)
    if settings.samples and models.adapted is not None:
        _own_text(models, settings, result)
    if "general" in documents:
        bos, windows = list(models.special.bos_ids), _windows(models, documents["general"], settings)
        texts = [([*bos, *w.token_ids], len(bos) + w.first_new_token) for w in windows]
        details = {"sources": list(settings.general), "unit": "window", "seed": settings.seed}
        result.scores.extend(losses.drift_scores(models, texts, "drift/general", details))
    if settings.tasks:
        how = {"include_path": settings.tasks_path, "limit": settings.tasks_limit}
        sides = [tasks.run_tasks(side, settings.tasks, **how) if side else [] for side in (settings.reference, name)]
        result.scores.extend(tasks.compare_tasks(*sides))
    if settings.reference is None:
        # Of a model alone there is one value, and it stands where the adapted model's would.
        result.scores[:] = [s if s.after else replace(s, after=s.before, before=None) for s in result.scores]


def _drawn(items: Any, count: int, seed: int) -> list[Any]:
    return [items[int(i)] for i in sorted(np.random.default_rng(seed).permutation(len(items))[:count])]


def _learning(models: losses.Models, documents: Corpus, task: str, settings: EvaluateSettings) -> list[Score]:
    windows = [window for window in _windows(models, documents, settings) if losses.VIEW.skip_reason(window) is None]
    if not windows:
        raise DataError(f"{task}: no document has a second sentence to be measured on. Give longer documents.")
    return losses.learning_scores(models, windows, task, seed=settings.seed)


def _windows(models: losses.Models, documents: Corpus, settings: EvaluateSettings) -> list[Window]:
    """Of as many documents as are asked for, and as many of their windows, so that no long text takes for ever."""
    window_settings, count = (
        WindowSettings(max_length=models.max_length, language=settings.language),
        settings.max_documents,
    )
    drawn = _drawn(documents, count, settings.seed)
    read = [read_document(document, 0, models.tokenizer, models.special, window_settings).windows for document in drawn]
    windows = [replace(window, index=i) for i, window in enumerate(window for part in read for window in part)]
    return _drawn(windows, count, settings.seed)


def _ask(
    models: losses.Models, asked: list[questions.Question], documents: Corpus | None, instruction: str, result: Scores
) -> None:
    asked_about = {question.document for question in asked}
    texts = {document.id: document.text for document in documents or () if document.id in asked_about}
    if not texts:
        result.notes.append("No question names a document that was read, so there is no open-book ceiling.")
    for setting, opened in (("closed_book", None), ("open_book", texts))[: 2 if texts else 1]:
        scores, rows = questions.ask(models, asked, setting, opened, instruction=instruction)
        result.scores.extend(scores)
        result.answers.extend(rows)


def _suite(settings: EvaluateSettings) -> suites.Suite:
    if settings.suite_cache and Path(settings.suite_cache).is_file():
        raise ConfigError(f"suite_cache: {settings.suite_cache!r} is a file. Give a folder.")
    suite = suites.find_suite(settings.suite or "")
    return suites.drawn_suite(suite, split=settings.split, max_items=settings.max_items, seed=settings.seed)


def _answer(models: losses.Models, suite: suites.Suite, settings: EvaluateSettings, result: Scores) -> None:
    tokens, read = settings.answer_tokens, models.tokenizer
    scores, rows = answering.answer_suite(models, suite, answer_tokens=tokens, cache=settings.suite_cache)
    result.scores.extend(scores)
    result.answers.extend(rows)
    long = sum(len(generation.token_ids(read, item.answer)) > tokens for item in suite.items)
    if long:
        result.notes.append(f"{long} answers of the suite have more than answer_tokens = {tokens}. Raise it.")
    if suite.texts:
        bos = list(models.special.bos_ids)
        texts = [([*bos, *generation.token_ids(read, text)][: models.max_length], len(bos)) for text in suite.texts]
        details = {"suite": suite.name, "unit": "text"}
        result.scores.extend(losses.drift_scores(models, texts, "drift/suite_texts", details))


def _own_text(models: losses.Models, settings: EvaluateSettings, result: Scores) -> None:
    tokens, seed, tokenizer = min(settings.sample_tokens, models.max_length // 2), settings.seed, models.tokenizer
    samples = generation.own_samples(models.reference, tokenizer, count=settings.samples, new_tokens=tokens, seed=seed)
    details = {"sampled_from": "reference", "temperature": 1.0, "new_tokens": tokens, "seed": seed}
    result.scores.extend(losses.drift_scores(models, [(s.token_ids, 1) for s in samples], "drift/own_samples", details))
    asked = samples[: settings.answered_samples]
    result.samples.extend(generation.answered_prompts(models.reference, models.adapted, tokenizer, asked))
