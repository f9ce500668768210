"""Rows by hand, and a grid small enough to run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SKILLS = {"learning": ("direct", "reverse"), "retention": ("reading", "arithmetic")}


def estimate(value: float, half: float | None = 0.1) -> dict[str, Any]:
    return {"value": value, "interval_95": None if half is None else [value - half, value + half]}


def scores(**splits: Any) -> list[dict[str, Any]]:
    """`test=(0.4, retention(0.9, 0.7))`: learning of every skill, retention by skill. The base has 0 and 1."""
    rows = []
    for split, (learning, retention) in splits.items():
        values = {("learning", s): (0.0, learning) for s in SKILLS["learning"]}
        values |= {("retention", s): (1.0, retention[s]) for s in SKILLS["retention"]}
        for (part, skill), (before, after) in values.items():
            row = {"task": f"{split}/{part}/{skill}", "metric": "correct_frac", "n": 50}
            rows.append(row | {"before": estimate(before), "after": estimate(after), "change": None})
    return rows


def retention(reading: float, arithmetic: float) -> dict[str, float]:
    return {"reading": reading, "arithmetic": arithmetic}


COST = {"epochs": 2.0, "steps": 4, "documents": 8, "student_tokens": 1000, "teacher_tokens": 500}
COST |= {"flops": 1.25e12, "train_seconds": 61.0, "peak_gib": None, "evaluate_seconds": 3.0}


def row(arm: str, rate: float, seed: int, measured: list[dict[str, Any]] | None) -> dict[str, Any]:
    named = {"arm": arm, "learning_rate": rate, "seed": seed, "fingerprint": f"{arm} {rate:g} {seed}"}
    if measured is None:
        return {"format": 1, "status": "failed", "reason": "The loss is not finite.", **named}
    environment = {"device": "cpu", "torch": "2.0", "created": "2026-05-04T12:00:00+00:00"}
    return {"format": 1, "status": "complete", **named, "scores": measured, "cost": COST, "environment": environment}


def asked(rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """grid.json of a grid that has exactly these cells."""
    given = {"model_name_or_path": "models/tiny", "suite": "suite.jsonl", "reference_point": [0.0, 0.0]}
    given |= {"max_loss_points": 5.0, "learning_metric": "correct_frac", "retention_metric": "correct_frac"}
    cells = [{name: r[name] for name in ("arm", "learning_rate", "seed", "fingerprint")} for r in rows]
    arms = {r["arm"]: {"method": r["arm"]} for r in rows}
    return {"format": 1, "command": "afterword compare", "settings": given | settings, "arms": arms, "cells": cells}


@pytest.fixture
def by_hand() -> Any:
    """What rows and grids are written with: scores, retention, row, asked."""
    return SimpleNamespace(scores=scores, retention=retention, row=row, asked=asked)


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, documents: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `model` (a link), docs.jsonl and suite.jsonl."""
    (tmp_path / "model").symlink_to(model_folder)
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents), encoding="utf-8")
    items = [
        {"id": f"{split}-{part}-{i}", "part": part, "skill": skill, "split": split, "prompt": f"Where? {i}"}
        | {"answer": "Oslo", "checks": [{"kind": "contains", "value": "Oslo"}]}
        for split in ("dev", "test")
        for part, skill in (("learning", "direct"), ("retention", "reading"))
        for i in range(2)
    ]
    (tmp_path / "suite.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
