"""benchmarks/real_small_table.py: what an arm covers, by hand; and the tables of a few rows."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("real_small_table")


def row(arm: str, right: int, tasks: int, written: int, rate: float = 2e-4, **more: Any) -> dict[str, Any]:
    """A row with so many of ten right of each kind."""
    ten = {name: [1] * n + [0] * (10 - n) for name, n in {"right": right, "one": tasks, "written": written}.items()}
    kept = {"one": ten["one"], "written": ten["written"]}
    about = {"arm": arm, "learning_rate": rate, "seed": 0, "drift_nats": 0.5}
    return {**about, "right": ten["right"], "said": ten["right"], "kept_right": kept, **more}


GIVEN = row("as given", 2, 5, 7, rate=0.0)
ROWS = [
    GIVEN,
    # 30 points above, at 58: 10 above 0.8 · 60; at 40 points above it keeps 48 and covers nothing more.
    row("Fine-tuning", 5, 5, 6, flops=3e12, train_seconds=90.0),
    row("Fine-tuning", 6, 5, 4, rate=4e-4, way=[{"share": 0.5, **row("", 4, 5, 7)}]),
    row("Other", 9, 5, 4),
]


def test_the_docstrings_are_right(table: Any) -> None:
    assert doctest.testmod(table).failed == 0


def test_an_arm_covers_what_its_cells_and_blends_do(table: Any) -> None:
    rows = [{**each, "way": [{**part, "arm": each["arm"]} for part in each.get("way", ())]} for each in ROWS]
    cells = table.cells_of(rows)
    points = table.drawn(cells, resamples=0)
    found = {key: value[0].tolist() for key, value in points.items()}
    assert found["Fine-tuning", 2e-4, 1.0] == pytest.approx([50, 55])
    assert found["Fine-tuning", 4e-4, 0.5] == pytest.approx([40, 60])
    own = [value for (arm, _, _), value in points.items() if arm == "Fine-tuning"]
    # Above (20, 48): 30 · (55 − 48), and the blend 20 · (60 − 55) more; 45 is below.
    (area,) = table.covered(own, points["as given", 0.0, 1.0], 0.8)
    assert area == pytest.approx(30 * 7 + 20 * 5)
    (area,) = table.covered([points["Other", 2e-4, 1.0]], points["as given", 0.0, 1.0], 0.8)
    assert area == 0.0


def test_draws_are_of_the_same_items_for_all(table: Any) -> None:
    twins = [GIVEN, row("One", 5, 6, 7), row("Two", 5, 6, 7)]
    points = table.drawn(table.cells_of(twins), resamples=50)
    one, two = (points[arm, 2e-4, 1.0] for arm in ("One", "Two"))
    assert (one == two).all()
    assert one.std(axis=0).min() > 0
    # Whoever is right where the model as given is, and elsewhere, is never below it.
    assert (one >= points["as given", 0.0, 1.0]).all()


def test_the_tables(table: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    short = row("Short", 5, 5, 5)
    short["kept_right"]["one"] = [1, 0]
    rows = [{**each, "way": [{**part, "arm": each["arm"]} for part in each.get("way", ())]} for each in ROWS]
    again = {**ROWS[1], "seed": 1, "everyday_drift_nats": 0.25}
    assert again["arm"] == "Fine-tuning"
    rows.append(again)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*rows, short]))
    monkeypatch.setattr(sys, "argv", ["real_small_table.py", str(tmp_path / "rows.jsonl"), "--resamples", "20"])
    table.main()
    said = capsys.readouterr().out
    (cell,) = (line for line in said.splitlines() if line.startswith("| Fine-tuning | 0.0002"))
    assert cell.endswith("| 0.500 | 0.250 | 3.0 | 1.5 | – |")
    assert "| Fine-tuning | 3 | 310 [" in said
    assert "| Other | 1 | 0 [" in said
    assert "Not among them, because they were measured on other items: Short at 0.0002." in said
