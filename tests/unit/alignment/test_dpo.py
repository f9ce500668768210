"""DPO: the reference is the model that DPO starts from, full and under LoRA, and the first loss says so."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from afterword.alignment.dpo import build_dpo_trainer, refuse_other_reference, train_dpo
from afterword.alignment.stages import trainable
from afterword.alignment.templates import chat_tokens
from afterword.errors import TrainingError
from afterword.models import LoraSettings, load_adapted, load_model, with_lora

QUIET = Console(file=io.StringIO())


@pytest.fixture
def full(build_model: Any, perturb: Any, model_folder: Path) -> Any:
    """What SFT made of the base: moved weights under a configuration that names the base's folder."""
    model = perturb(build_model())
    model.config._name_or_path = str(model_folder)
    return model


@pytest.fixture
def adapted(perturb: Any, model_folder: Path, tmp_path: Path) -> Any:
    """The same under LoRA with dropout, saved and loaded as a stage does it."""
    perturb(with_lora(load_model(str(model_folder)), LoraSettings(r=4, dropout=0.3), 0)).save_pretrained(
        tmp_path / "adapter"
    )
    return load_adapted(str(tmp_path / "adapter"))


@pytest.fixture(params=["full", "adapted"])
def started(request: pytest.FixtureRequest, settings_of: Any) -> Any:
    """A model that DPO starts from, ready to be trained."""
    return trainable(request.getfixturevalue(request.param), settings_of())


@torch.no_grad()
def logps(model: Any, tokenizer: Any, pairs: list[Any]) -> list[list[float]]:
    """Sums of log p over the response, of the chosen and of the rejected, one text at a time in float64."""
    model = copy.deepcopy(model).double().eval()

    def of(prompt: Any, response: str) -> float:
        """Of one response."""
        tokens = chat_tokens(tokenizer, "own", prompt, response)
        found = model(input_ids=torch.tensor(tokens.ids)[None]).logits[0].log_softmax(-1)
        return sum(float(found[p - 1, tokens.ids[p]]) for p in range(tokens.start, len(tokens.ids)))

    return [[of(p.prompt, p.response) for p in pairs], [of(p.prompt, p.rejected) for p in pairs]]


def test_the_references_logprobs_are_those_of_the_start_and_not_of_the_base(
    started: Any, chat_tokenizer: Any, build_model: Any, pairs: list[Any], settings_of: Any, tmp_path: Path
):
    expected, base = (logps(model, chat_tokenizer, pairs) for model in (started, build_model()))
    trainer = build_dpo_trainer(started, chat_tokenizer, pairs, settings_of(), tmp_path / "work")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
    found = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)
    for side, ours, bases in zip(found, expected, base, strict=True):
        assert side.tolist() == pytest.approx(ours, rel=1e-4)
        assert side.tolist() != pytest.approx(bases, rel=1e-2)


def test_the_first_loss_is_ln_2_and_only_the_policy_moves(
    started: Any, chat_tokenizer: Any, pairs: list[Any], settings_of: Any, tmp_path: Path
):
    before = {name: value.detach().clone() for name, value in started.named_parameters()}
    reference = logps(started, chat_tokenizer, pairs)
    settings = settings_of(dpo_learning_rate=2e-3, dpo_epochs=6, dpo_batch_size=6, gradient_accumulation_steps=2)
    result = train_dpo(started, chat_tokenizer, pairs, settings, tmp_path / "work", QUIET)
    assert (result.samples, result.steps) == (12, 12)
    assert result.losses[1] == pytest.approx(math.log(2), abs=1e-4)
    assert result.losses[12] < 0.6
    # The last losses are of this policy against that reference.
    (chosen, rejected), (old_chosen, old_rejected) = logps(started, chat_tokenizer, pairs), reference
    margins = [c - oc - (r - o) for c, oc, r, o in zip(chosen, old_chosen, rejected, old_rejected, strict=True)]
    assert sum(margins) / len(margins) > 1
    after = dict(started.named_parameters())
    # The reference's adapter is not left in the model.
    assert set(after) == set(before)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name in before if "lora" in name} or set(before)
    assert moved == trained


def test_what_the_configuration_names_is_not_the_reference(
    full: Any, chat_tokenizer: Any, pairs: list[Any], settings_of: Any, tmp_path: Path
):
    full.config._name_or_path = str(tmp_path / "nowhere")
    trainer = build_dpo_trainer(full, chat_tokenizer, pairs, settings_of(dpo_beta=0.7), tmp_path)
    assert trainer.beta == 0.7
    assert trainer.args.max_length is None


def test_a_first_loss_that_is_not_ln_2_stops_before_any_step(
    full: Any, chat_tokenizer: Any, pairs: list[Any], settings_of: Any, tmp_path: Path
):
    # This dropout is no module, so that trl does not switch it off.
    full.config.attention_dropout = 0.5
    for layer in full.model.layers:
        layer.self_attn.attention_dropout = 0.5
    before = {name: value.detach().clone() for name, value in full.named_parameters()}
    with pytest.raises(TrainingError, match=r"dpo: the first loss is .* not ln 2 = 0.6931.*attention_dropout"):
        train_dpo(full, chat_tokenizer, pairs, settings_of(), tmp_path, QUIET)
    assert all(torch.equal(before[name], value) for name, value in full.named_parameters())


def test_the_tolerance_of_the_first_loss():
    refuse_other_reference(math.log(2) + 9e-5)
    for wrong in (math.log(2) + 2e-4, math.log(2) - 2e-4, math.nan):
        with pytest.raises(TrainingError, match="first loss"):
            refuse_other_reference(wrong)


def test_under_autocast_the_first_loss_is_ln_2_as_well(
    started: Any, chat_tokenizer: Any, pairs: list[Any], settings_of: Any, tmp_path: Path
):
    result = train_dpo(started, chat_tokenizer, pairs, settings_of(precision="bf16_mixed"), tmp_path / "w", QUIET)
    assert result.losses[1] == pytest.approx(math.log(2), abs=1e-4)
