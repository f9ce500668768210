"""The shipped models are those of their cards, and score what the cards say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from afterword.almanac.files import suite_lines
from afterword.evaluation import evaluate
from afterword.evaluation.suites import Item, Suite
from afterword.named_models import MODELS, WEIGHTS
from almanac_build.card import BARS, card_items

PER_BAR = 16


@pytest.fixture(scope="module", params=sorted(MODELS))
def folder(request: pytest.FixtureRequest) -> Path:
    return MODELS[request.param]


@pytest.fixture(scope="module")
def scores(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "scores.json").read_text("utf-8"))


def test_the_weights_are_those_that_the_card_names(folder: Path, scores: Mapping[str, Any]) -> None:
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found == scores["sha256"]
    assert found in (folder / "README.md").read_text("utf-8")


def test_all_models_together_are_small() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*.safetensors")) <= 16 * 2**20


def test_a_model_is_a_small_llama_in_bf16(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert config.model_type == "llama"
    assert str(model.dtype) == "torch.bfloat16"
    assert 1.5e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 3.9e6


def test_the_tokenizer_follows_from_the_seed(folder: Path, full: Any) -> None:
    shipped = AutoTokenizer.from_pretrained(folder)
    assert shipped.get_vocab() == full.get_vocab()
    assert bool(shipped.chat_template) == (folder.name == "chat")


def test_every_bar_of_the_chat_model_is_met_on_its_card() -> None:
    lines = json.loads((MODELS["almanac-chat"] / "scores.json").read_text("utf-8"))["scores"]
    shares = {line["name"]: line["share"]["value"] for line in lines if line["bar"]}
    assert {bar.name for bar in BARS} == set(shares)
    assert [bar.name for bar in BARS if not bar.is_met(shares[bar.name])] == []


@pytest.fixture(scope="module")
def suite() -> Suite:
    """Made once: it is the same for every model."""
    return card_items()


def test_the_weights_reach_the_scores_of_the_card(
    folder: Path, scores: Mapping[str, Any], suite: Suite, tmp_path: Path
) -> None:
    chosen = list[Item]()
    for bar in BARS:
        items = [item for item in suite.items if item.skill in bar.skills and item.split == "test"]
        chosen += items[:: max(1, len(items) // PER_BAR)][:PER_BAR]
    path = tmp_path / "suite.jsonl"
    path.write_text(suite_lines(replace(suite, items=tuple(chosen))), encoding="utf-8")
    answers = evaluate(folder, suite=str(path), split="test", samples=0, output_dir=tmp_path).answers
    shares = {line["name"]: line["share"]["value"] for line in scores["scores"] if line["bar"]}
    for bar in BARS:
        right = [row["after_correct"] for row in answers if row["skill"] in bar.skills]
        # What a model with the card's score falls short of, or exceeds, once in a thousand draws of so many.
        low, high = stats.binom.ppf((0.001, 0.999), len(right), shares[bar.name])
        assert low <= sum(right) <= high, (bar.name, sum(right), len(right), shares[bar.name])
