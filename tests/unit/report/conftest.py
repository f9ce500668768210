"""A synthetic run folder in the fixed formats, hostile text included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "<script>alert('x')</script> | `a` *b*"


def estimate(value: float, half: float | None = None) -> dict[str, Any]:
    interval = None if half is None else [value - half, value + half]
    return {"value": value, "interval_95": interval}


def score(task: str, metric: str, before: Any, after: Any, change: Any, better: str | None) -> dict[str, Any]:
    row = {"task": task, "metric": metric, "version": 1, "n": 240, "seeds": 1, "better": better}
    return row | {"before": before, "after": after, "change": change, "details": {"template": "chat"}}


def scores() -> list[dict[str, Any]]:
    e = estimate
    nll, kl = "target_nll_nats", "kl_from_context_nats"
    return [
        score("learning/held_out", nll, e(2.512, 0.06), e(2.104, 0.05), e(-0.408, 0.04), "lower"),
        score("learning/held_out", "target_nll_with_context_nats", e(1.873, 0.05), None, None, None),
        score("learning/held_out", kl, e(0.618, 0.03), e(0.334, 0.02), e(-0.284, 0.03), "lower"),
        score("learning/trained", nll, e(2.498, 0.05), e(1.702, 0.05), e(-0.796, 0.04), "lower"),
        score("questions/closed_book", "said_frac", e(0.05, 0.02), e(0.4125, 0.05), e(0.3625, 0.06), "higher"),
        score("questions/closed_book", "token_f1_frac", e(0.12, 0.02), e(0.51, 0.05), e(0.39, 0.05), "higher"),
        score("questions/open_book", "said_frac", e(0.91, 0.03), e(0.9, 0.03), e(-0.01, 0.02), "higher"),
        score("drift/own_samples", "kl_nats", None, e(0.0213, 0.004), None, "lower"),
        score("drift/general", "bits_per_byte", e(0.912, 0.03), e(0.915, 0.03), e(0.0031, 0.0012), "lower"),
        score("tasks/ifeval", "inst_level_strict_acc_frac", e(0.72, 0.04), e(0.705, 0.04), e(-0.015, 0.03), "higher"),
        score(f"tasks/$x$ {HOSTILE}", "acc,none", e(0.5), e(0.6), e(0.1, 0.05), "higher"),
        score("tasks/gsm8k", "exact_match", e(0.5), e(0.6), e(0.1), "higher"),
        score("tasks/broken", "acc,none", {"value": float("nan"), "interval_95": None}, None, None, None),
    ]


def answer(number: int, before: bool, after: bool) -> dict[str, Any]:
    said = {True: "In 2026.", False: "I do not know when this happened."}
    return {
        "setting": "closed_book" if number % 4 else "open_book",
        "question": f"{number}. When was the harbour of Vell opened?" + HOSTILE * (number == 1),
        "expected": ["2026", HOSTILE] if number == 1 else ["2026"],
        "document": f"docs/harbour-{number}.md",
        "prompt": f"user: Question {number}\nassistant:",
        "before": said[before],
        "after": said[after] + (f"\n- {HOSTILE}" if number == 1 else ""),
        "before_correct": before,
        "after_correct": after,
    }


def measurements() -> dict[str, Any]:
    return {
        "format": 1,
        "created": "2026-05-04T12:30:00+00:00",
        "command": "afterword evaluate runs/docs --questions quiz.jsonl",
        "model": "runs/docs",
        "reference": "Qwen/Qwen3-1.7B",
        "settings": {"batch_size": 8, "limit": None},
        "scores": scores(),
        "samples": [
            {"prompt": "Tell me about the sea.", "before": "1. It is wide.\n- And blue.", "after": HOSTILE},
            {"prompt": HOSTILE, "before": "Yes, gladly. " * 12, "after": ""},
        ],
        "answers": [answer(i, i % 7 == 0, i % 3 > 0) for i in range(60)],
        "notes": ["Held-out text came from 12 documents."],
    }


def metric_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 301):
        loss = 0.4 + 0.9 * 0.99**step + 0.05 * ((step * 7919) % 13 - 6) / 6
        rows.append({"step": step, "train/loss_nats": loss, "data/documents": 4})
        if step % 50 == 0:
            rows.append({"step": step, "eval/loss_nats": loss + 0.05, "eval/nll_nats": loss + 2})
    return rows


def data() -> dict[str, Any]:
    return {
        "documents": 1204,
        "characters": 3_400_123,
        "tokens": 812_345,
        "windows": 1310,
        "content_sha256": "9b1e" * 16,
        "split_documents": 66,
        "cut_sentences": 2,
        "sources": [
            {"source": "docs/news.jsonl", "documents": 1200, "characters": 3_390_000, "skipped": {"empty": 1}},
            {"source": f"docs/{HOSTILE}.md", "documents": 4, "characters": 10_123, "skipped": {}},
        ],
        "skipped": [{"source": "docs/news.jsonl", "location": "line 12", "reason": "empty", "detail": HOSTILE}],
        "skipped_total": 1,
    }


CONFIG = f"""model_name_or_path: Qwen/Qwen3-1.7B
documents: [docs/news.jsonl, "docs/{HOSTILE}.md"]
output_dir: runs/docs
method: disc
learning_rate: 3.0e-06
num_train_epochs: 1.0
documents_per_step: 4
seed: 42
config: null
trainer: {{max_grad_norm: 1.0, hub_token: hf_secret}}
"""


def fill(folder: Path, *, measured: bool) -> Path:
    """Write a run folder as `afterword adapt` and, if `measured`, `afterword evaluate` leave it."""
    folder.mkdir()
    environment = {
        "afterword": "0.1.0",
        "python": "3.11.9",
        "torch": "2.11.0",
        "device": "NVIDIA H100",
        "cpu_count": 16,
    }
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "command.txt").write_text("afterword adapt Qwen/Qwen3-1.7B docs -o runs/docs --hub-token hf_secret\n")
    (folder / "environment.json").write_text(json.dumps(environment | {"created": "2026-05-04T11:00:00+00:00"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metric_rows()))
    (folder / "data.json").write_text(json.dumps(data()))
    (folder / "state.json").write_text(json.dumps({"status": "complete", "steps": 300, "seconds": 754.2}))
    if measured:
        (folder / "scores.json").write_text(json.dumps(measurements()))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fill(tmp_path / "docs", measured=True)


@pytest.fixture
def unmeasured_run(tmp_path: Path) -> Path:
    return fill(tmp_path / "plain", measured=False)
