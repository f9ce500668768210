"""The other readings of a study: what they are means of, and which seeds have an area."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "study_readings.py"


@pytest.fixture
def readings(by_hand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Print the tables of a study with these rows, some of them of cells that the grid does not ask for."""
    spec = importlib.util.spec_from_file_location("study_readings", SCRIPT)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def printed(asked: list[Any], rows: list[Any], *flags: str) -> str:
        (tmp_path / "grid.json").write_text(json.dumps(by_hand.asked(asked)))
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr(sys, "argv", ["study_readings", str(tmp_path), *flags])
        script.main()
        return capsys.readouterr().out

    return printed


_DRIFT = {"task": "drift/own_samples", "metric": "kl_nats", "n": 16, "before": None, "after": {"value": 0.25}}


def _row(by_hand: Any, rate: float, seed: int, learned: float, gap: float = 0.5) -> dict[str, Any]:
    """Learning was 0 and retention 1 before; retention stays 1."""
    row = by_hand.row("a", rate, seed, by_hand.scores(test=(learned, by_hand.retention(1.0, 1.0))))
    side = {"interval_95": None}
    more = [
        ("drift/own_samples", "kl_nats", 16, None, 0.25),
        ("learning/held_out", "kl_from_context_relative_frac", 16, None, gap),
        ("learning/trained", "kl_from_context_relative_frac", 32, None, gap / 2),
        ("test/learning/reverse", "old_value_said_frac", 9, 1.0, learned),
        ("test/learning/direct", "choice_correct_frac", 50, 0.25, 0.75),
    ]
    for task, metric, n, before, after in more:
        sides = {"before": before and {"value": before, **side}, "after": {"value": after, **side}}
        row["scores"].append({"task": task, "metric": metric, "n": n, **sides})
    return row


def test_a_seed_that_lacks_a_rate_has_no_area(by_hand: Any, readings: Any) -> None:
    rows = [_row(by_hand, *place) for place in ((1e-5, 0, 0.2), (3e-5, 0, 0.4), (1e-5, 1, 0.9), (3e-5, 1, 0.6))]
    whole = readings(rows, rows)
    assert "| a | 65 [0, 100] | – | 75 [75, 75] | 2 | 0 |" in whole
    # With the last cell missing, the second seed's 90 counts no more.
    assert "| a | 40 | – | 75 | 1 | 1 |" in readings(rows, rows[:3])
    assert "| a | – | – | – | 0 | 1 |" in readings(rows, rows[:1])


def test_what_is_learned_at_equal_retention_is_read_off_each_seeds_curve(by_hand: Any, readings: Any) -> None:
    # Before: 0 learned, 100 % kept. For one seed 95 % is a quarter of the way to 80 % (5 learned), for the other all of
    # its way (60), beyond which it does not get.
    places = ((1e-5, 0, 0.2, 0.8), (3e-5, 0, 0.9, 0.4), (1e-5, 1, 0.6, 0.95))
    rows = [
        by_hand.row("a", rate, seed, by_hand.scores(test=(up, by_hand.retention(k, k)))) for rate, seed, up, k in places
    ]
    rows = [{**row, "scores": [*row["scores"], _DRIFT]} for row in rows]
    said = readings(rows, rows, "--at-kept", "95", "90", "60")
    assert "| a | 95 | 32 [0, 100] | – | – | 2 |" in said
    assert "| a | 90 | 10 | – | – | 1 |" in said
    assert "| a | 60 | 55 | – | – | 1 |" in said
    assert "| a | 10 | – | – | – | 0 |" in readings(rows, rows, "--at-kept", "10")


def test_rows_of_other_cells_and_earlier_rows_do_not_count(by_hand: Any, readings: Any) -> None:
    now, other = _row(by_hand, 1e-5, 0, 0.2), _row(by_hand, 9e-5, 0, 0.9)
    before = _row(by_hand, 1e-5, 0, 0.5)
    said = readings([now], [before, other, now])
    assert "| a | 1e-05 | 20 |" in said
    assert "9e-05" not in said


def test_the_header_says_which_skills_each_mean_is_over(by_hand: Any, readings: Any) -> None:
    rows = [_row(by_hand, 1e-5, 0, 0.2)]
    header = readings(rows, rows).split("\n\n")[0].splitlines()
    assert header[1:] == [
        "- said: direct, reverse",
        "- refusing impossible: of no skill",
        "- chosen of four: direct",
        "- kept: reading, arithmetic",
    ]


def test_the_label_free_readings_are_means_over_seeds(by_hand: Any, readings: Any) -> None:
    rows = [_row(by_hand, 1e-5, 0, 0.2, gap=1.0), _row(by_hand, 1e-5, 1, 0.4, gap=1.2)]
    assert "old value said" not in readings(rows, rows)
    said = readings(rows, rows, "--label-free")
    # t(1) = 12.706; s = 0.1414 for both; a gap may be above what it was, and so may its bound.
    assert "| a | 1e-05 | 30 [0, 100] | 110 [0, 237] | 55 [0, 119] | 2 |" in said
    assert "old value said 9, gap left, held-out wordings 16, gap left, the documents 32" in said
    assert "| before | – | 100 | 100 | 100 | – |" in said
