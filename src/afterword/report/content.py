"""What the pages say, independent of how they look: HTML and Markdown are filled from the same record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from afterword.report import labels, numbers
from afterword.report.figures import Drawing, draw_changes, draw_training
from afterword.report.readings import Column, Row, headline, rows_of
from afterword.report.run_folder import Answer, Data, RunFolder

MOST_QUESTIONS = 40
MOST_OPEN = 8
MOST_SKIPPED = 50

_MARKS = {
    (False, True): "newly right",
    (True, False): "forgotten",
    (True, True): "still right",
    (False, False): "still wrong",
}
_DATA_FACTS = {
    "documents": "Documents",
    "characters": "Characters",
    "tokens": "Tokens",
    "windows": "Windows (pieces that fit the context)",
    "split_documents": "Documents read in several windows",
    "cut_sentences": "Sentences cut because they exceed the context",
    "targets_first_epoch": "Trained tokens in the first epoch",
}


@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """A question with the one word that tells what became of it."""

    answer: Answer
    mark: str

    @property
    def kind(self) -> str:
        """The mark as a CSS class."""
        return self.mark.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class QuestionGroup:
    """All questions of one setting: counted by mark, the first ones shown."""

    title: str
    total: int
    counts: Mapping[str, int]
    shown: tuple[MarkedAnswer, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the report and the model card print."""

    run: RunFolder
    base: str
    method: str
    summary: str
    warning: str
    """Why the run is not a finished one; empty where it is."""
    measure_command: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    drawings: tuple[Drawing, ...]
    questions: tuple[QuestionGroup, ...]
    data_facts: Mapping[str, str]
    skipped_total: int
    load_python: str
    load_server: str
    glossary: tuple[labels.Measure, ...]


def build_page(run: RunFolder) -> Page:
    """Gather a run into what its pages print."""
    measured = run.measured
    rows = rows_of(measured.scores) if measured else ()
    drawings = (draw_changes(rows), draw_training(run.metrics))
    used = dict.fromkeys(row.score.metric for row in rows)
    return Page(
        run=run,
        base=str(run.settings.get("model_name_or_path") or "unknown model"),
        method=str(run.settings.get("method") or "unknown method"),
        summary=_summary(run),
        warning=_warning(run),
        measure_command=shlex.join(["afterword", "evaluate", str(run.path)]),
        rows=rows,
        columns=headline(rows) if rows else (),
        drawings=tuple(drawing for drawing in drawings if drawing),
        questions=_question_groups(measured.answers if measured else ()),
        data_facts=_data_facts(run.data),
        skipped_total=run.data.skipped_total or sum(sum(s.skipped.values()) for s in run.data.sources),
        load_python=_load_python(run),
        load_server=_load_server(run),
        glossary=tuple(labels.MEASURES[metric] for metric in used if metric in labels.MEASURES),
    )


def _summary(run: RunFolder) -> str:
    """One sentence of what happened; what the folder does not tell is left out."""
    model = PurePath(str(run.settings.get("model_name_or_path") or "The model")).name
    read = _plural(run.data.documents, "document")
    tokens = f" ({_plural(run.data.tokens, 'token')})" if run.data.tokens else ""
    steps = run.state.steps or max((row["step"] for row in run.metrics), default=0)
    seconds = run.state.seconds
    time = f", taking {numbers.duration(seconds)}" if seconds is not None else ""
    return f"{model} was taught {read}{tokens} in {_plural(steps, 'optimizer step')}{time}."


def _plural(n: int, noun: str) -> str:
    return f"{numbers.count(n)} {noun}{'' if n == 1 else 's'}"


def _warning(run: RunFolder) -> str:
    if run.state.status == "complete":
        return ""
    return f"This run is not complete (status: {run.state.status}). What follows describes an unfinished model."


def _question_groups(answers: Sequence[Answer]) -> tuple[QuestionGroup, ...]:
    settings = dict.fromkeys(answer.setting for answer in answers)
    return tuple(_question_group(name, [a for a in answers if a.setting == name]) for name in settings)


def _question_group(setting: str, answers: Sequence[Answer]) -> QuestionGroup:
    marked = [MarkedAnswer(a, _MARKS[a.before_correct, a.after_correct]) for a in answers]
    counts = {mark: sum(m.mark == mark for m in marked) for mark in _MARKS.values()}
    title = labels.task_label(f"questions/{setting}")
    return QuestionGroup(title, len(marked), counts, tuple(marked[:MOST_QUESTIONS]))


def _data_facts(data: Data) -> dict[str, str]:
    known = {label: getattr(data, key) for key, label in _DATA_FACTS.items()}
    return {label: numbers.count(n) for label, n in known.items() if n is not None}


def _folder(run: RunFolder) -> str:
    return str(run.settings.get("output_dir") or run.path)


def _load_python(run: RunFolder) -> str:
    loader = "AutoPeftModelForCausalLM" if run.is_adapter else "AutoModelForCausalLM"
    imports = (
        f"from peft import {loader}\nfrom transformers import AutoTokenizer"
        if run.is_adapter
        else f"from transformers import {loader}, AutoTokenizer"
    )
    return f"""{imports}

folder = {json.dumps(_folder(run))}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loader}.from_pretrained(folder, dtype="auto")"""


def _load_server(run: RunFolder) -> str:
    if not run.is_adapter:
        return shlex.join(["vllm", "serve", _folder(run)])
    base = str(run.settings.get("model_name_or_path") or "")
    return shlex.join(["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{run.name}={_folder(run)}"])


def printed_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text: strings as they are, everything else as JSON, unset ones left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in settings.items()
        if value is not None
    }
