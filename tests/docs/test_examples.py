"""Files that the pages show can be read: settings in YAML, questions, a suite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from afterword.evaluation.question_file import load_questions
from afterword.evaluation.suites import load_suite
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.sequence import read_sequence

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted((DOCS / "guides").glob("*.md"))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
]


def _lines_with(page: str, key: str) -> str:
    """The lines of a page that are objects with a key."""
    lines = (DOCS / page).read_text("utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(f'{{"{key}"'))


@pytest.mark.parametrize("block", BLOCKS)
def test_settings_of_a_guide_can_be_read(block: str) -> None:
    given = yaml.safe_load(block)
    if "corpora" in given:
        read_sequence(given)
    else:
        read_settings({"model_name_or_path": "model", "documents": ["docs"], **given}, AdaptSettings)


@pytest.mark.parametrize("page", ["first_hour.md", "guides/evaluate.md"])
def test_questions_of_a_page_can_be_read(page: str, tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text(_lines_with(page, "question"), encoding="utf-8")
    assert all(question.choices for question in load_questions(tmp_path / "quiz.jsonl"))


def test_the_suite_of_the_reference_can_be_read(tmp_path: Path) -> None:
    lines = _lines_with("reference/suite.md", "suite") + _lines_with("reference/suite.md", "id")
    (tmp_path / "suite.jsonl").write_text(lines, encoding="utf-8")
    suite = load_suite(tmp_path / "suite.jsonl")
    assert (suite.name, len(suite.items)) == ("letters", 1)
