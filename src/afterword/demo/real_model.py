"""The demo of the real model, from nothing to its page: the same functions, in the same order, as a person's commands.

The one rule: everything that is shown was computed in this run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from afterword import models, report
from afterword.budget import run_within_budget
from afterword.budget.record import load_record
from afterword.demo.folder import about_demo, begin, command_line, record
from afterword.demo.lessons import (
    BRIEFLY,
    FERRY,
    OPEN_BOOK,
    OTHERWISE,
    SEED,
    TOLD,
    load_documents,
    load_questions,
    options,
    write_lessons,
)
from afterword.demo.story import LessonsStory
from afterword.evaluation import evaluate
from afterword.evaluation.intervals import before_and_after, estimate
from afterword.report.demo_page import build_demo, write_demo
from afterword.settings.adapt import read_settings
from afterword.settings.yaml_files import load_yaml
from afterword.training import run_adaptation

REAL = "smollm2-135m-instruct"
"""The model that is taught where no other is named."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Lesson:
    """How the documents are taught and asked for: recipe.yaml, read."""

    label: str
    """What a reader calls the way of teaching."""
    adapt: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    open_book: Mapping[str, Any]
    shown: Mapping[str, int]
    """How many answers are shown, by part."""


def load_lesson(path: Path = FERRY / "recipe.yaml") -> Lesson:
    """The recipe in a YAML file."""
    return Lesson(**load_yaml(path))


def run_lessons(
    folder: Path, *, model: str = REAL, lesson: Lesson | None = None, console: Console | None = None
) -> Path:
    """Tell the whole story into `folder`, which is made anew, and return the page."""
    started, lesson = time.perf_counter(), lesson or load_lesson()
    story = LessonsStory(console or Console())
    # What cannot be loaded leaves no folder behind.
    parameters = sum(parameter.numel() for parameter in models.load_model(model).parameters())
    begin(folder)
    counts = write_lessons(folder / "world")
    story.opens(model, parameters, folder)
    suite = {"suite": str(folder / "world" / "suite.jsonl"), "suite_cache": str(folder / "cache"), **lesson.evaluate}
    asked, base = _measured(model, folder / "base", suite)
    story.asks_the_base_model(asked, base, counts)
    opened = {"suite": str(folder / "world" / "open_book.jsonl"), **lesson.open_book}
    opening, reading = _measured(model, folder / "reading", opened)
    story.reads(opening, reading)
    taught, run = _adapted(folder, model, lesson, story)
    again, answers = _measured(str(folder / "taught"), folder / "taught", suite)
    report.write_model_card(folder / "taught")
    report.write_report(folder / "taught")
    about = about_demo(model, parameters, time.perf_counter() - started) | {"world": "ferry", "counts": counts}
    about |= {"label": lesson.label, "settings": dict(lesson.adapt), "commands": [asked, opening, taught, again]}
    about |= {"steps": run.steps, "training_seconds": run.seconds, "figures": figures_of(answers, reading)}
    about |= {"budget": load_record(folder / "taught")}
    about |= {"answers": drawn_answers(answers, lesson.shown)}
    about |= {"documents": [asdict(document) for document in load_documents()]}
    record(folder, about)
    story.compares(again, build_demo(folder))
    page = write_demo(folder)
    story.ends(page, time.perf_counter() - started)
    return page


def _measured(model: str, folder: Path, what: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The command that measures a model or run, and a row for every question."""
    own = [] if Path(model) == folder else ["-o", str(folder)]
    command = command_line("evaluate", model, *own, **what)
    return command, evaluate(model, output_dir=folder, command=command, **what).answers


def _adapted(folder: Path, model: str, lesson: Lesson, story: LessonsStory) -> tuple[str, Any]:
    documents, run = str(folder / "world" / "documents"), folder / "taught"
    command = command_line("adapt", model, documents, "-o", str(run), **lesson.adapt)
    story.teaches(lesson.label, command)
    given = {"model_name_or_path": model, "documents": [documents], "output_dir": str(run)}
    settings = read_settings({**lesson.adapt, **given})
    adapted = run_within_budget if settings.is_guided else run_adaptation
    done = adapted(settings, command=command, console=story.console)
    story.has_taught(done)
    return command, done


def is_right(row: Mapping[str, Any], side: str) -> bool:
    """Whether a question is right as the bars count it: by its choice of four where it has one, else by its answer.

    >>> is_right({"after_chosen": False, "after_correct": True}, "after"), is_right({"after_correct": True}, "after")
    (False, True)
    """
    return bool(row.get(f"{side}_chosen", row[f"{side}_correct"]))


def said(row: Mapping[str, Any], side: str) -> bool:
    """Whether the answer that was written passes the checks."""
    return bool(row[f"{side}_correct"])


def figures_of(answers: Rows, reading: Rows) -> dict[str, Any]:
    """What was learned and what was kept: before, after and change with intervals, and what the documents give."""
    told = [row for row in answers if row["skill"] == TOLD]
    other = [row for row in answers if row["skill"] == OTHERWISE]
    kept = [row for row in answers if row["part"] == "retention"]
    opened = [float(is_right(row, "after")) for row in reading if row["skill"] == OPEN_BOOK]
    by_skill: dict[str, list[Mapping[str, Any]]] = {}
    for row in kept:
        by_skill.setdefault(row["skill"], []).append(row)
    return {
        "learned": _figure([*told, *other], is_right) | {"ceiling": asdict(estimate(opened)) if opened else None},
        "told": _figure(told, is_right),
        "otherwise": _figure(other, is_right),
        "said": _figure(told, said),
        "kept": _figure(kept, is_right),
        "skills": {skill: _figure(rows, is_right) for skill, rows in by_skill.items()},
    }


def _figure(rows: Rows, right: Callable[[Mapping[str, Any], str], bool]) -> dict[str, Any]:
    """Both sides and the change. Wordings of one fact are one unit: the id up to its last slash names the fact."""
    sides = [[float(right(row, side)) for row in rows] for side in ("before", "after")]
    units = [row["id"].rpartition("/")[0] if row["part"] == "learning" else row["id"] for row in rows]
    found = before_and_after(*sides, units=units)
    return {"n": len(rows), "units": len(set(units))} | {name: asdict(value) for name, value in found.items()}


def drawn_answers(answers: Rows, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """So many questions of each part with what was written before and after, drawn by the seed: nobody chose them."""
    drawn: list[dict[str, Any]] = []
    for part, count in counts.items():
        own = [row for row in answers if row["part"] == part and row["skill"] != OTHERWISE]
        places = np.random.default_rng(SEED).permutation(len(own))[:count]
        drawn += [_shown(own[int(place)]) for place in sorted(places)]
    return drawn


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "part", "skill", "expected", "before", "after", "before_correct", "after_correct")
    about = {name: row[name] for name in names} | {"question": row["question"].removesuffix(f" {BRIEFLY}")}
    question = next((q for q in load_questions() if row["id"] == f"{q.id}/{row['skill']}"), None)
    return about | ({"options": options(question), "documents": question.documents} if question else {})
