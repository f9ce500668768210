"""`afterword evaluate`: what a run learned and what it lost, before and after, into scores.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from afterword.batching import Packing
from afterword.corpus import Corpus, read_corpus
from afterword.errors import CheckpointError, ConfigError, DataError
from afterword.evaluation.drift import Text, drift_scores, text_losses
from afterword.evaluation.learning import VIEW, learning_scores, target_losses
from afterword.evaluation.questions import answer_questions, answer_rows, load_questions, question_scores
from afterword.evaluation.samples import before_and_after, own_samples
from afterword.evaluation.tasks import compare_tasks, run_tasks
from afterword.models import (
    ADAPTER_CONFIG,
    base_of_adapter,
    causal_lm,
    context_length,
    has_result,
    load_adapted,
    load_tokenizer,
    packs_cleanly,
    replace_file,
)
from afterword.types import Score, Window
from afterword.views import Reading, SpecialTokens, read_document, special_tokens

Sources = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What to measure. Everything here is written beside the scores."""

    documents: Sources = ()
    """Trained documents; those of the run when not given."""
    held_out: Sources = ()
    """Documents that were not trained; the run's `eval_documents` when not given."""
    questions: str | None = None
    general: Sources = ()
    """Text of the kind that must not be forgotten."""
    tasks: tuple[str, ...] = ()
    tasks_limit: int | None = None
    tasks_path: str | None = None
    reference: str | None = None
    """The model before; the run's base when not given."""
    max_documents: int = 200
    """Documents drawn from each set, by the seed. The number used is the n of each score."""
    samples: int = 64
    sample_tokens: int = 128
    answered_samples: int = 10
    max_length: int | None = None
    micro_batch_tokens: int = 8192
    language: str = "en"
    seed: int = 0

    def problems(self) -> list[str]:
        """Values that cannot be used."""
        rules = {
            "max_documents": 1,
            "samples": 0,
            "sample_tokens": 8,
            "answered_samples": 0,
            "micro_batch_tokens": 16,
            "seed": 0,
        }
        return [
            f"{name}: must be at least {least}, got {getattr(self, name)}."
            for name, least in rules.items()
            if getattr(self, name) < least
        ]


@dataclass(frozen=True)
class Scores:
    """Everything one evaluation measured."""

    model: str
    reference: str | None
    scores: list[Score] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self, measurement: Measurement, command: str) -> dict[str, Any]:
        """As scores.json has it."""
        return {
            "format": 1,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "settings": asdict(measurement),
            **asdict(self),
        }


@dataclass(frozen=True)
class _Models:
    reference: Any
    adapted: Any | None
    tokenizer: Any
    max_length: int
    packing: Packing


def evaluate(
    model: str | Path, *, output_dir: str | Path | None = None, command: str = "", **measurement: Any
) -> Scores:
    """Measure a run folder (against its base) or a model alone; see `Measurement` for the settings.

    Scores go to scores.json in `output_dir`, by default the run folder itself.
    """
    name, settings = str(model), _completed(str(model), Measurement(**measurement))
    if problems := settings.problems():
        raise ConfigError(problems)
    if output_dir and Path(output_dir).is_file():
        raise ConfigError(f"output_dir: {str(output_dir)!r} is a file. Give a folder for scores.json.")
    questions = load_questions(settings.questions) if settings.questions else ()
    result = Scores(name, settings.reference)
    with tempfile.TemporaryDirectory(prefix="afterword-evaluate-") as scratch:
        corpora = _read(settings, Path(scratch))
        models = _load(name, settings)
        for part in ("trained", "held_out"):
            if corpora.get(part):
                result.scores.extend(_learning(models, corpora[part], f"learning/{part}", settings))
        if questions:
            _ask(models, questions, corpora, result)
        if settings.samples:
            _own_text(models, settings, result)
        if corpora.get("general"):
            result.scores.extend(_general(models, corpora["general"], settings))
    if settings.tasks:
        result.scores.extend(_tasks(name, settings))
    if settings.reference is None:
        result.scores[:] = [_alone(score) for score in result.scores]
    folder = Path(output_dir) if output_dir else Path(name) if _is_run(name) else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result.to_json(settings, command), indent=1, ensure_ascii=False)
        replace_file(folder / "scores.json", text)
    return result


def _alone(score: Score) -> Score:
    """Of a model without a reference there is one value, and it stands where the adapted model's would."""
    return score if score.after else replace(score, after=score.before, before=None)


def _is_run(name: str) -> bool:
    return (Path(name) / "config.yaml").is_file()


def _completed(name: str, measurement: Measurement) -> Measurement:
    """Fill in what the run folder knows: its base, its documents, its held-out documents."""
    if not _is_run(name):
        base = base_of_adapter(name) if (Path(name) / ADAPTER_CONFIG).is_file() else None
        return replace(measurement, reference=measurement.reference or base)
    if not has_result(Path(name)):
        raise ConfigError(
            f"RUN: {name!r} has no finished model. Run `afterword adapt` to its end first; the same command resumes it."
        )
    try:
        run = dict(yaml.safe_load((Path(name) / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name}/config.yaml: cannot be read ({reason}). The run folder is damaged.") from error
    return replace(
        measurement,
        reference=measurement.reference or run["model_name_or_path"],
        documents=measurement.documents or tuple(run["documents"]),
        held_out=measurement.held_out or tuple(run["eval_documents"]),
        language=run.get("language", measurement.language),
        max_length=measurement.max_length or run.get("max_length"),
    )


def _read(settings: Measurement, scratch: Path) -> dict[str, Corpus]:
    parts = {"trained": settings.documents, "held_out": settings.held_out, "general": settings.general}
    return {part: read_corpus(list(sources), cache_dir=scratch / part) for part, sources in parts.items() if sources}


def _load(name: str, settings: Measurement) -> _Models:
    adapted = load_adapted(name).eval()
    reference = load_adapted(settings.reference).eval() if settings.reference else None
    if (device := _device()) != "cpu":
        adapted = adapted.to(device)
        reference = reference.to(device) if reference is not None else None
    length = context_length(causal_lm(adapted).config, settings.max_length)
    layout = "packed" if packs_cleanly(adapted) else "padded"
    packing = Packing(max(settings.micro_batch_tokens, length), layout)
    tokenizer = load_tokenizer(name)
    # A model alone is its own reference: what it knows now, with nothing to compare.
    if reference is None:
        return _Models(adapted, None, tokenizer, length, packing)
    return _Models(reference, adapted, tokenizer, length, packing)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _learning(models: _Models, corpus: Corpus, task: str, settings: Measurement) -> list[Score]:
    special = special_tokens(models.tokenizer, "auto", "document")
    documents = _drawn(corpus, settings)
    windows = [w for w in _windows(documents, models, special, settings) if VIEW.skip_reason(w) is None]
    if not windows:
        raise DataError(
            f"{task}: none of the documents has a second sentence to be measured on. Give documents of at least two sentences."
        )
    losses = target_losses(models.reference, models.adapted, windows, special, models.packing, seed=settings.seed)
    return learning_scores(losses, task, seed=settings.seed)


def _drawn(corpus: Corpus, settings: Measurement) -> list[Any]:
    count = min(settings.max_documents, len(corpus))
    rows = np.random.default_rng(settings.seed).permutation(len(corpus))[:count]
    return [corpus[int(i)] for i in sorted(rows)]


def _windows(documents: Sequence[Any], models: _Models, special: SpecialTokens, settings: Measurement) -> list[Window]:
    reading = Reading(max_length=models.max_length, language=settings.language)
    read = [read_document(document, 0, models.tokenizer, special, reading) for document in documents]
    windows = [window for document in read for window in document.windows]
    return [replace(window, index=i) for i, window in enumerate(windows)]


def _ask(models: _Models, questions: Any, corpora: dict[str, Corpus], result: Scores) -> None:
    corpus = corpora.get("trained")
    texts = {document.id: document.text for document in corpus} if corpus else {}
    for setting in ("closed_book", "open_book"):
        if setting == "open_book" and not any(q.document in texts for q in questions):
            result.notes.append("No question names a document that was read, so there is no open-book ceiling.")
            continue
        asked = {"documents": texts, "setting": setting, "max_length": models.max_length}
        now = models.adapted if models.adapted is not None else models.reference
        after = answer_questions(now, models.tokenizer, questions, **asked)
        before = None
        if models.adapted is not None:
            before = answer_questions(models.reference, models.tokenizer, questions, **asked)
        result.scores.extend(question_scores(before, after, setting))
        result.answers.extend(answer_rows(before, after, setting))


def _own_text(models: _Models, settings: Measurement, result: Scores) -> None:
    if models.adapted is None:
        return
    tokens = min(settings.sample_tokens, models.max_length // 2)
    samples = own_samples(
        models.reference, models.tokenizer, count=settings.samples, new_tokens=tokens, seed=settings.seed
    )
    texts = []
    for sample in samples:
        ids = np.array(sample.token_ids, np.int64)
        size = len(models.tokenizer.decode(sample.token_ids, skip_special_tokens=True).encode())
        texts.append(Text(((ids, 1),), size))
    losses = text_losses(models.reference, models.adapted, texts, models.packing)
    details = {"sampled_from": "reference", "temperature": 1.0, "new_tokens": tokens, "seed": settings.seed}
    result.scores.extend(drift_scores(losses, "drift/own_samples", details))
    count = min(settings.answered_samples, len(samples))
    if count:
        rows = before_and_after(models.reference, models.adapted, models.tokenizer, samples, count=count)
        result.samples.extend(rows)


def _general(models: _Models, corpus: Corpus, settings: Measurement) -> list[Score]:
    special = special_tokens(models.tokenizer, "auto", "document")
    bos = np.array(special.bos_ids, np.int64)
    texts = []
    for document in _drawn(corpus, settings):
        windows = _windows([document], models, special, settings)
        sequences = [(np.concatenate([bos, w.token_ids]), len(bos) + w.first_new_token) for w in windows]
        texts.append(Text(tuple(sequences), len(document.text.encode())))
    losses = text_losses(models.reference, models.adapted, texts, models.packing)
    return drift_scores(losses, "drift/general", {"sources": list(settings.general), "seed": settings.seed})


def _tasks(name: str, settings: Measurement) -> list[Score]:
    options = {"include_path": settings.tasks_path, "limit": settings.tasks_limit}
    after = run_tasks(name, settings.tasks, **options)
    if settings.reference is None:
        return after
    return compare_tasks(run_tasks(settings.reference, settings.tasks, **options), after)
