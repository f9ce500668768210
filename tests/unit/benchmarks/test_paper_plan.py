"""The paper plan: by hand, and that docs/guides/many-machines.md quotes what the script says."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("paper_plan")


def test_parameters_are_those_of_the_model(plan: Any) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = plan.Shape(layers=2, hidden=64, intermediate=96, heads=8, key_heads=2, vocabulary=100)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 100}
    config = LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_memory_traffic_and_hours_by_hand(plan: Any) -> None:
    shape, machine = plan.Shape(), plan.Machine(tflops=1000.0, used_frac=0.5)
    full = plan.WAYS[0]
    assert plan.memory_gb(shape, full, 16, 1)["shards"] == pytest.approx(shape.parameters / 1e9)
    # Weights for the forward and again for the backward, gradients once: three times four bytes.
    assert plan.traffic_gb(shape, full) == pytest.approx(12 * shape.parameters / 1e9)
    # 2 forward, 2 again, 4 backward.
    assert plan.compute_seconds(shape, full, machine, 1000) == pytest.approx(8 * shape.parameters * 1000 / 5e14)


def test_failures_cost_what_was_not_saved(plan: Any) -> None:
    safe = plan.Machine(days_between_failures=1e9)
    assert plan.hours_with_failures(100, 32, safe, 60, 0) == 100
    machine = plan.Machine(days_between_failures=60, restart_minutes=0)
    often, seldom = ([plan.hours_with_failures(1000, 32, machine, m, s) - 1000 for s in range(300)] for m in (6, 60))
    # 1000 hours at 45 hours between failures are about 22 failures, each of which loses half an interval.
    assert sum(often) / 300 == pytest.approx(22 * 0.05, rel=0.2)
    assert sum(seldom) / 300 == pytest.approx(22 * 0.5, rel=0.2)


def test_the_page_quotes_what_the_script_says(plan: Any) -> None:
    page = (ROOT / "docs/guides/many-machines.md").read_text(encoding="utf-8")
    for line in plan.report(plan.Shape(), plan.Machine(), 256, 1e11, 8192).splitlines():
        assert line in page
