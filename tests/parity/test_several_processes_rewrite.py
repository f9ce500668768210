"""Two gloo processes teach a student on what it writes as it learns, and come to what one comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import Forking
from safetensors.torch import load_file

PROGRAM = """
import sys
from afterword.cli import main
from afterword.training import written_documents
from scripted import open_scripted

# A tiny model asks no questions; what it answers as it learns is its own.
written_documents.open_writer = open_scripted
sys.argv[0] = "afterword"
main()
"""
SETTINGS = "--method on_policy --refresh-steps 2 --own-questions 2 --new-tokens 12 --max-steps 6 --documents-per-step 3"
SETTINGS += " --learning-rate 1e-2 --precision float32"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, forking: Forking, model_folder: Path, documents: Any) -> Path:
    """A folder with the run of one process and that of two, and what they said."""
    folder = tmp_path_factory.mktemp("rewritten")
    rows = [row for row in documents if len(row["text"]) < 140][:3]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    for processes in (1, 2):
        words = ("adapt", model_folder, "docs.jsonl", *SETTINGS.split(), "-o", f"run-{processes}")
        said = forking.run(folder, folder / "program.py", *words, processes=processes).all
        (folder / f"said-{processes}.txt").write_text(said, encoding="utf-8")
    return folder


def losses(run: Path) -> list[float]:
    rows = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["train/loss_nats"] for row in rows]


def test_the_student_writes_the_same_before_every_block(place: Path) -> None:
    written = [
        {path.name: path.read_text("utf-8") for path in (place / run / "rollouts").iterdir()}
        for run in ("run-1", "run-2")
    ]
    assert sorted(written[0]) == ["block-00001.jsonl", "block-00002.jsonl"]
    assert written[0]["block-00001.jsonl"] != written[0]["block-00002.jsonl"]
    assert written[0] == written[1]


def test_losses_and_weights_are_the_same(place: Path) -> None:
    one, two = (losses(place / run) for run in ("run-1", "run-2"))
    assert two == pytest.approx(one, rel=1e-4)
    assert len(one) == 6
    alone, shared = (load_file(place / run / "model.safetensors") for run in ("run-1", "run-2"))
    assert max((alone[name] - shared[name]).abs().max().item() for name in alone) < 1e-4


def test_what_was_chosen_is_told_once(place: Path) -> None:
    said = (place / "said-2.txt").read_text("utf-8")
    assert said.count("Chosen: ") == 1
    assert said.count("Budget: ") == 1
