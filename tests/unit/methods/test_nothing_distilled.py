"""Mix-CPT at α = 1 is continual pre-training: it says so, and gives the very weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterword import adapt
from afterword.models import load_model
from afterword.report import write_report

SAYS = "At alpha = 1 nothing is distilled and no teacher is read: this is continual pre-training."


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, documents: Any, general_rows: Any, monkeypatch: Any) -> Path:
    """A working folder with `model`, docs.jsonl and general.jsonl."""
    (tmp_path / "model").symlink_to(model_folder)
    for name, rows in (("docs", documents), ("general", general_rows)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_said_on_the_command_line_and_in_the_report(place: Path, afterword: Any):
    words = ("adapt", "model", "docs.jsonl", "--preset", "mixcpt-paper", "--max-steps", "1")
    for alpha, says in (("1", True), ("0.9", False)):
        named = (*words, "--alpha", alpha, "-o", f"run-{alpha}")
        assert (SAYS in afterword(*named, "--dry-run").out) == says
        assert (SAYS in afterword(*named).out) == says
        pages = write_report(place / f"run-{alpha}")
        assert [SAYS in " ".join(page.read_text(encoding="utf-8").split()) for page in pages] == [says, says]


def test_the_weights_are_those_of_continual_pre_training(place: Path):
    mixture = {"general": {"files": ["general.jsonl"], "tokens": 0.3}}
    how = {"mixture": mixture, "max_steps": 4, "learning_rate": 1e-3, "documents_per_step": 2}
    how["lr_scheduler_type"] = "linear"
    for name, more in (("cpt", {}), ("mixcpt", {"alpha": 1.0}), ("half", {"alpha": 0.5})):
        method = "mixcpt" if name == "half" else name
        adapt("model", ["docs.jsonl"], method=method, output_dir=name, **how, **more)
    start, cpt, mixcpt, half = (dict(load_model(n).named_parameters()) for n in ("model", "cpt", "mixcpt", "half"))
    assert all(cpt[name].equal(mixcpt[name]) for name in start)
    assert not any(cpt[name].equal(start[name]) or cpt[name].equal(half[name]) for name in start)
