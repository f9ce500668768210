"""The page of `afterword demo --world almanac`. Reads demo.json, the run folders that it names, a recorded comparison.

The one rule: what was measured in this run and what was recorded elsewhere stand apart, and the page says so.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from afterword.errors import CheckpointError
from afterword.report import comparison as frontier
from afterword.report import pages
from afterword.report.demo_page import AGAIN, load_demo
from afterword.report.display import MISSING, load_table
from afterword.report.run_folder import load_run, read_file
from afterword.report.wording import Rows, Wording, grouped, rows_of
from afterword.storage.parsing import parse_json

_HEADINGS = {"learning": "What was learned", "retention": "What was lost"}
_METRIC = "correct_frac"
MIN_QUESTIONS = 10
"""Of fewer, no row is judged."""
_OUTCOMES = {
    "learned": ("Learned", "newly right", "Wrong before, right after."),
    "forgotten": ("Forgotten", "forgotten", "Right before, wrong after."),
    "still wrong": ("Still wrong", "still wrong", "Wrong before and after."),
    "kept": ("Kept", "still right", "Right before and after."),
}
"""Heading, the mark of words.yaml that it counts, and what it means."""


def write_almanac(folder: Path, study: Path) -> Path:
    """Write demo.html (self-contained) into a demo's folder.

    `study` is a folder with a recorded compare.json and the recipe that it was recorded by.
    """
    return pages._write(folder / "demo.html", build_almanac(folder, study), template="almanac.html.j2")


def build_almanac(folder: Path, study: Path) -> dict[str, Any]:
    """Everything that the page prints, and the terminal's table. CheckpointError where the folder holds no demo."""
    demo = load_demo(folder / "demo.json", end="runs")
    runs = [{**entry, **_run(folder / entry["name"])} for entry in demo["runs"]]
    tables = [_table(part, demo, runs) for part in demo["skills"]]
    questions = _questions(folder, demo, runs)
    return {
        "demo": demo,
        "runs": runs,
        "tables": tables,
        "looks": frontier.LOOKS,
        "groups": _groups(questions, runs),
        "settings": _settings(runs),
        "study": frontier.build_comparison(study) if (study / "compare.json").is_file() else None,
        "recorded_by": _recorded_by(study),
        "model_name": Path(demo["model"]).name,
        "few": MIN_QUESTIONS,
    }


def _recorded_by(study: Path) -> dict[str, Any] | None:
    """The recipe beside a recorded comparison, and every command that the comment at its top says to run."""
    recipe = next(iter(sorted(study.glob("*.yaml"))), None)
    if recipe is None:
        return None
    text = recipe.read_text(encoding="utf-8")
    return {"file": f"recipes/{recipe.name}", "text": text, "commands": re.findall(r"^#   (\S.*)$", text, re.MULTILINE)}


def _run(folder: Path) -> dict[str, Any]:
    run = load_run(folder)
    if run["measured"] is None:
        raise CheckpointError(f"{folder}: nothing was measured. Run `afterword demo` again.")
    return {"run": run, "method": run["settings"].get("method"), "shown": pages.printed_settings(run["settings"])}


def _table(part: str, demo: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All questions of a part together, then skill by skill."""
    by_skill = [_scores_of(part, run["run"]["measured"]["scores"]) for run in runs]
    names, totals = demo["skills"][part], demo["totals"][part]
    skills = [*(s for s in names if s in by_skill[0]), *(s for s in by_skill[0] if s not in names)]
    rows = [_row(names.get(skill, skill), [scores[skill] for scores in by_skill]) for skill in skills]
    together = [_row(total["label"], [total["scores"][run["name"]] for run in runs]) for total in totals]
    return {"part": part, "heading": _HEADINGS.get(part, part), "rows": rows, "totals": together}


def _scores_of(part: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """By skill, where anything was asked. Of several splits, the last."""
    measured = [score for score in scores if score["metric"] == _METRIC and score["before"] and score["after"]]
    tasks = [(score["task"].split("/"), score) for score in measured]
    return {task[2]: score for task, score in tasks if len(task) == 3 and task[1] == part}


def _row(label: str, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One line of a table: the base model, which all runs share, and every run. Of few questions nothing is said."""
    n = scores[0]["n"]
    shown = rows_of([{**score, "details": {}} for score in scores])
    runs = [{**row, **_place(row["score"]["after"], n)} for row in shown]
    if n < MIN_QUESTIONS:
        runs = [{**row, "reading": Wording("too few questions to tell", "none")} for row in runs]
    before = {**shown[0]["before"], **_place(scores[0]["before"], n)}
    return {"label": label, "n": n, "before": before, "runs": runs}


def _place(estimate: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Where a fraction and its interval are drawn, in % of the width; and how many of n it is."""
    low, high = estimate["interval_95"] or (estimate["value"],) * 2
    drawn = {"at": estimate["value"], "low": low, "width": high - low}
    return {**{name: f"{100 * x:.2f}%" for name, x in drawn.items()}, "right": round(estimate["value"] * n)}


def _questions(folder: Path, demo: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Rows:
    """Every question with the answers of the base model and of every run, and the documents that tell the answer."""
    documents = _documents(folder / "world" / "documents.jsonl")
    by_run = [{answer["id"]: answer for answer in run["run"]["measured"]["answers"]} for run in runs]
    return [
        _question(demo, runs, [answers[name] for answers in by_run], documents)
        for name in by_run[0]
        if all(name in answers for answers in by_run)
    ]


def _documents(file: Path) -> dict[str, dict[str, Any]]:
    return read_file(file, lambda text: {row["id"]: row for row in map(parse_json, text.splitlines())}, AGAIN)


def _question(
    demo: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    documents: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    marks, first = load_table("words.yaml")["marks"], answers[0]
    sides = [{"label": "Before", "mark": "", **_side(first, "before")}]
    for run, answer in zip(runs, answers, strict=True):
        mark = marks[first["before_correct"]][answer["after_correct"]]
        sides.append({"label": run["label"], "mark": mark, **_side(answer, "after")})
    told = demo["evidence"].get(first["id"], [])
    skill = demo["skills"].get(first["part"], {}).get(first["skill"], first["skill"])
    about = {name: first[name] for name in ("id", "question", "expected")}
    evidence = [_told(documents[entry["document"]], entry["sentence"]) for entry in told]
    return {**about, "skill": skill, "sides": sides, "outcome": outcome(sides), "evidence": evidence}


def _side(answer: Mapping[str, Any], side: str) -> dict[str, Any]:
    said = {"text": answer[side], "right": answer[f"{side}_correct"]}
    return {**said, "unrefused": answer.get(f"{side}_unrefused")}


def outcome(sides: Sequence[Mapping[str, Any]]) -> str:
    """What became of a question: the base model's answer and those of the runs after it, right or wrong.

    >>> outcome([{"right": True}, {"right": True}, {"right": False}])
    'forgotten'
    """
    before, *after = (side["right"] for side in sides)
    if before:
        return "kept" if all(after) else "forgotten"
    return "learned" if any(after) else "still wrong"


def _told(document: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    """A document with the sentence marked that tells the answer."""
    parts = [escape(part) for part in document["text"].split(sentence)]
    text = Markup("<mark>{}</mark>").format(sentence).join(parts)
    return {"title": document.get("title", document["id"]), "date": document.get("date", ""), "text": text}


def _groups(questions: Rows, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Questions by what became of them. A question is in one group; a run is counted by its own answers."""
    marked = [[side["mark"] for side in question["sides"][1:]] for question in questions]
    return [
        {
            "name": name,
            "heading": heading,
            "meaning": meaning,
            "counts": [sum(marks[i] == mark for marks in marked) for i in range(len(runs))],
            "questions": _mixed([question for question in questions if question["outcome"] == name]),
        }
        for name, (heading, mark, meaning) in _OUTCOMES.items()
    ]


def _mixed(questions: Rows) -> Rows:
    """One of every skill, then a second of every skill, and so on: the first few show all that there is."""
    turns = zip_longest(*grouped(questions, "skill").values())
    return [question for question in chain.from_iterable(turns) if question is not None]


def _settings(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the recipe says of any run, and what each run has."""
    names = dict.fromkeys(chain.from_iterable(run["settings"] for run in runs))
    return {name: [run["shown"].get(name, MISSING) for run in runs] for name in names}
