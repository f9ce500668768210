"""The studies in the repository: what they say follows from their rows, and the demo shows one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from afterword.comparison.summary import summarise
from afterword.demo.almanac import STUDY

STUDIES = Path(__file__).resolve().parents[3] / "studies"


@pytest.mark.parametrize("name", sorted(folder.parent.name for folder in STUDIES.glob("*/grid.json")))
def test_a_recorded_study_follows_from_its_rows(name: str, tmp_path: Path) -> None:
    for file in ("grid.json", "rows.jsonl"):
        shutil.copy(STUDIES / name / file, tmp_path)
    summarise(tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text()) == json.loads(
        (STUDIES / name / "compare.json").read_text()
    )


def test_the_study_that_the_demo_shows_is_one_of_them() -> None:
    shown = (STUDY / "compare.json").read_text()
    assert shown in [file.read_text() for file in STUDIES.glob("*/compare.json")]


def test_the_recipe_that_the_demo_shows_is_that_of_its_study() -> None:
    (recipe,) = STUDY.glob("*.yaml")
    text = recipe.read_text()
    assert text == (STUDIES.parent / "recipes" / recipe.name).read_text()
    assert json.loads((STUDY / "compare.json").read_text())["command"] in text
