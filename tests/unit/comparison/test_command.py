"""`afterword compare` as a person types it."""

import json
from functools import partial

import pytest

from afterword.comparison import run as running


@pytest.fixture
def typed(afterword):
    return partial(afterword, "compare")


def test_a_grid_from_the_command_line_and_its_page_again(place, by_hand, monkeypatch, typed):
    kept = by_hand.retention(0.9, 0.97)
    measured = {"scores": by_hand.scores(dev=(0.3, kept), test=(0.4, kept)), "notes": []}
    monkeypatch.setattr(running, "measure", lambda run, settings, command: measured)
    grid = ("--methods", "disc,finetune", "--learning-rates", "1e-4", "--seeds", "0", "--adapt", "max_steps=1")
    code, out, err = typed(
        "model", "docs.jsonl", "--suite", "suite.jsonl", "-o", "out", *grid, "--max-loss-points", "12"
    )
    assert (code, "cell 2/2: finetune, learning rate 0.0001, seed 0" in err) == (0, True)
    assert "40.0% [32.9, 47.1]" in out
    assert "Wrote compare.html, compare.md, compare.png to out." in out
    page = (place / "out/compare.html").read_bytes()
    (place / "out/compare.html").unlink()
    (place / "model").unlink()
    assert typed("out", "--report-only")[0] == 0
    assert (place / "out/compare.html").read_bytes() == page
    chosen = json.loads((place / "out/compare.json").read_text())["arms"][0]["pick"]
    assert chosen["dev"]["losses_points"]["reading"] == pytest.approx(10)


def test_what_is_wrong_is_said_before_anything_runs(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    code, _, err = typed("--methods", "discc", "--adapt", "max_stepz=1")
    assert code == 2
    for name in ("model_name_or_path", "documents", "suite", "output_dir", "learning_rates", "adapt.max_stepz"):
        assert f"- {name}: " in err
    assert "Did you mean disc?" in err


def test_a_folder_without_a_comparison_is_refused(tmp_path, typed):
    code, _, err = typed(str(tmp_path), "--report-only")
    assert (code, "holds no comparison" in err) == (1, True)
