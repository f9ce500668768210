"""The page of a sequence: every matrix and its transfer, escaped, self-contained, the same for the same file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import CheckpointError
from afterword.report import write_pages
from afterword.report.sequence import build_sequence

HOSTILE = "<script>alert('x')</script> $a$ | `b`"


def estimate(value: float | None, half: float = 0.1) -> dict[str, Any] | None:
    return None if value is None else {"value": value, "interval_95": [value - half, value + half]}


def measure(metric: str, better: str, cells: list[list[float]]) -> dict[str, Any]:
    shown = {
        "task": "Questions, from memory",
        "metric": HOSTILE,
        "unit": "nats per token" if better == "lower" else "%",
    }
    shown |= {"shows": "learned", "headline": 1, "meaning": "", "in_verdict": False}
    return {
        "task": "questions/closed_book",
        "metric": metric,
        "better": better,
        "shown": shown,
        "corpora": ["spring", HOSTILE],
        "taught_at": [1, 2],
        "n": [20, 24],
        "cells": [[estimate(value) for value in row] for row in cells],
        "with_document": [estimate(0.5), None],
        "learned": [estimate(0.5), estimate(0.25)],
        "forward": [None, estimate(0.0)],
        "backward": [estimate(-0.125), None],
        "means": {
            "end": estimate(0.4),
            "learned": estimate(0.375),
            "forward": estimate(0.0),
            "backward": estimate(-0.125),
        },
    }


def sequence() -> dict[str, Any]:
    matrices = [
        measure("choice_correct_frac", "higher", [[0.25, 0.25], [0.75, 0.25], [0.625, 0.5]]),
        measure("target_nll_nats", "lower", [[3.5, 3.25], [2.0, 3.125], [2.25, 1.5]]),
    ]
    drift = {"task": "drift/own_samples", "metric": "kl_nats", "better": "lower", "n": 64, "first": None}
    drift |= {"shown": {"task": "Text the base model wrote", "metric": "Drift", "unit": "nats per token"}}
    drift |= {
        "stages": [{"after": estimate(0.05, 0.01), "change": None}, {"after": estimate(0.12, 0.02), "change": None}]
    }
    used = {"method": "m", "learning_rate": 1e-4, "num_train_epochs": 6.0}
    ended = {"status": "complete", "settings": used, "steps": 36, "seconds": 61.0, "held_to": "first"}
    waiting = {"status": "not begun", "settings": {}, "steps": None, "seconds": None, "held_to": "first"}
    stages = [{"number": n, "name": "c", "folder": f"{n}-c", "begins_with": "first", **ended} for n in (1, 2)]
    corpus = {"documents": 8, "questions": 20, "held_out": 0, "content_sha256": ""}
    return {
        "format": 1,
        "created": "2026-05-04T12:30:00+00:00",
        "command": "afterword sequence m a b -o s",
        "settings": {"model_name_or_path": f"models/{HOSTILE}", "adapt": {"trainer": {"hub_token": "secret"}}},
        "held_to": f"models/{HOSTILE}",
        "corpora": [{"name": "spring", **corpus}, {"name": HOSTILE, **corpus}],
        "stages": [*stages, {"number": 3, "name": "c", "folder": "3-c", "begins_with": "s/2-c", **waiting}],
        "models": ["first", "1-c", "2-c"],
        "measures": matrices,
        "retention": [drift],
        "notes": [HOSTILE],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sequence.json").write_text(json.dumps(sequence()))
    return tmp_path


def test_the_pages_hold_every_cell_and_are_the_same_again(folder: Path) -> None:
    pages = write_pages(folder)
    assert [page.name for page in pages] == ["sequence.html", "sequence.md"]
    before = [page.read_bytes() for page in pages]
    assert before == [page.read_bytes() for page in write_pages(folder)]
    for text in (page.read_text() for page in pages):
        for value in ("25.0%", "75.0%", "62.5%", "−12.5 points", "+50.0 points", "2.250", "0.120", "1 min 1 s"):
            assert value in text, value
        assert "Stages that are not done: 1" in text


def test_nothing_hostile_is_let_through(folder: Path) -> None:
    html, markdown = (page.read_text() for page in write_pages(folder))
    assert "<script" not in html + markdown
    assert "secret" not in html + markdown
    assert not re.search(r"""(?:src|href)=["'](?!#)""", html), "nothing from outside"
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all("$a$" not in row for row in rows)


def test_own_stage_and_what_is_not_yet_taught_are_told_apart(folder: Path) -> None:
    rows = build_sequence(folder)["matrices"][0]["rows"]
    assert [[cell["when"] for cell in row["cells"]] for row in rows] == [
        ["before", "before"],
        ["own", "before"],
        ["later", "own"],
    ]


def test_the_lead_says_what_became_of_it(folder: Path) -> None:
    lead = build_sequence(folder)["lead"]
    assert lead.startswith("2 of 3 corpora are taught.")
    assert "40.0% in the mean over all corpora at the end; learned by its own stage +37.5 points [27.5, 47.5]" in lead
    assert "backward transfer −12.5 points [−22.5, −2.5]" in lead


@pytest.mark.parametrize("text", [None, "{", '{"format": 1}'])
def test_a_folder_without_a_whole_sequence_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "sequence.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"sequence\.json"):
        build_sequence(tmp_path)
