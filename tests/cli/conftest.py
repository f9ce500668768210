"""A place to make mistakes in: a model, documents, questions and runs, all tiny; and a person at the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """Every file below a folder by its content, and every folder."""
    return lambda folder: {str(p.relative_to(folder)): _digest(p) for p in sorted(folder.rglob("*"))}


def _digest(path: Path) -> str:
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, documents: Any) -> Path:
    """A place with `model`, `docs.jsonl`, `quiz.jsonl`, and `done`: a run of them, trained to its end."""
    place = tmp_path_factory.mktemp("first")
    shutil.copytree(model_folder, place / "model")
    rows = "".join(json.dumps(row) + "\n" for row in documents)
    (place / "docs.jsonl").write_text(rows, encoding="utf-8")
    quiz = {"question": "Where was Mara Lind born?", "answer": "Oslo", "document": "doc-0"}
    (place / "quiz.jsonl").write_text(json.dumps(quiz) + "\n", encoding="utf-8")
    _train(place, "docs.jsonl", "done")
    return place


def _train(place: Path, documents: str, run: str) -> None:
    from afterword import adapt

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        adapt("model", documents, output_dir=run, preset="disc-paper", max_steps=2)


@pytest.fixture
def place(finished_run: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run's place, as the working folder. Its name gives no word of a message away."""
    folder = tmp_path_factory.mktemp("here") / "p"
    shutil.copytree(finished_run, folder)
    monkeypatch.chdir(folder)
    return folder
