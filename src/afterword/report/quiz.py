"""The page of a quiz: some of its questions with their sources, and what fell at which filter. Reads one file alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterword.report import pages
from afterword.report.run_folder import flat_settings, read_file, without_tokens
from afterword.storage.parsing import parse_json

_SHOWN = 10


def write_quiz(suite: Path) -> Path:
    """Write quiz.html (self-contained) beside quiz.jsonl, from quiz.json; the same file always gives the same bytes.

    CheckpointError where there is no such file, or a broken one.
    """
    stem = suite.name.removesuffix(".jsonl")
    again = "Run `afterword quiz` first, or give the suite that it wrote."
    page = read_file(suite.with_name(f"{stem}.json"), lambda text: _page(suite.name, parse_json(text)), again)
    return pages.write_page(suite.with_name(f"{stem}.html"), page, "quiz.html.j2")


def _page(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    questions = data["questions"]
    # Spread over the documents: every so many of them.
    step = max(1, len(questions) // _SHOWN)
    drafted = sum(row["left_out"] for row in data["filters"]) + sum(len(each["wordings"]) for each in questions)
    return {
        "name": name,
        "model": data["settings"]["model_name_or_path"],
        "facts": data["facts"],
        "documents": data["documents"],
        "sides": {"dev": data["dev"], "test": data["test"]},
        "kinds": data["kinds"],
        "drafted": drafted,
        "filters": _filters(data["filters"], drafted),
        "shown": questions[::step][:_SHOWN],
        "prompts": data["prompts"],
        "command": without_tokens(data["command"]),
        "settings": flat_settings(data["settings"]),
    }


def _filters(rows: list[dict[str, Any]], drafted: int) -> list[dict[str, Any]]:
    """Each with what is left behind it."""
    found, left = list[dict[str, Any]](), drafted
    for row in rows:
        left -= row["left_out"]
        found.append({**row, "left": left})
    return found
