"""Two small corpora with questions, and a sequence of them on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterword.settings.sequence import SequenceSettings, read_sequence

LITTLE = {"samples": 4, "sample_tokens": 8, "max_questions": 3, "answered_samples": 0}


@pytest.fixture
def corpora(documents: Any, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """`spring` with questions that have choices, `autumn` with none at all."""
    for name, rows in (("spring", documents[:5]), ("autumn", documents[5:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [
        {"question": "Where was Mara Lind born?", "answer": "Oslo", "choices": ["Oslo", "Rome"], "document": "doc-0"},
        {"question": "Where is her bakery?", "answer": "Bergen", "choices": ["Bergen", "Paris"], "document": "doc-1"},
    ]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    spring = {"documents": str(tmp_path / "spring.jsonl"), "questions": str(tmp_path / "quiz.jsonl")}
    return {"spring": spring, "autumn": {"documents": str(tmp_path / "autumn.jsonl")}}


@pytest.fixture
def asked(corpora: Any, model_folder: Path, tmp_path: Path) -> Callable[..., SequenceSettings]:
    """Settings of the sequence, and what is to be otherwise."""

    def settings(**more: Any) -> SequenceSettings:
        given = {"model_name_or_path": str(model_folder), "corpora": corpora, "output_dir": str(tmp_path / "seq")}
        return read_sequence({**given, "evaluate": LITTLE, **more})

    return settings
