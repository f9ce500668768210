"""The studies in the repository: what they say follows from their rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from afterword.comparison.summary import summarise

STUDIES = Path(__file__).resolve().parents[3] / "studies"


@pytest.mark.parametrize("name", sorted(folder.parent.name for folder in STUDIES.glob("*/grid.json")))
def test_a_recorded_study_follows_from_its_rows(name: str, tmp_path: Path) -> None:
    for file in ("grid.json", "rows.jsonl"):
        shutil.copy(STUDIES / name / file, tmp_path)
    summarise(tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text()) == json.loads(
        (STUDIES / name / "compare.json").read_text()
    )
