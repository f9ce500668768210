"""SFT as trl does it on our rows: only the response is trained, whole, and the loss is its mean by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from afterword.alignment.sft import build_sft_trainer, train_sft
from afterword.alignment.stages import refuse_machine, stage_arguments, summary
from afterword.alignment.templates import chat_tokens
from afterword.errors import ConfigError, TrainingError

QUIET = Console(file=io.StringIO())


def test_only_the_last_response_is_trained_and_all_of_it(
    chat_tokenizer: Any, build_model: Any, instructions: list[Any], settings_of: Any, tmp_path: Path
):
    trainer = build_sft_trainer(build_model(), chat_tokenizer, instructions, settings_of(), tmp_path)
    assert trainer.args.max_length is None
    for row, dialogue in zip(trainer.train_dataset, instructions, strict=True):
        tokens = chat_tokens(chat_tokenizer, "own", dialogue.prompt, dialogue.response)
        assert row["input_ids"] == tokens.ids.tolist()
        assert row["labels"] == [-100] * tokens.start + tokens.ids[tokens.start :].tolist()
        trained = chat_tokenizer.decode([label for label in row["labels"] if label != -100])
        assert trained == dialogue.response + "</s>"


def test_the_first_loss_is_the_mean_over_the_steps_response_tokens(
    chat_tokenizer: Any, build_model: Any, instructions: list[Any], settings_of: Any, tmp_path: Path
):
    # All samples in one step, cut into parts of unequal lengths: the mean is over tokens, whatever the cut.
    whole, parts = ({"sft_batch_size": 12, "gradient_accumulation_steps": n} for n in (1, 4))
    losses = []
    for number, raw in enumerate((whole, parts)):
        model = build_model()
        result = train_sft(model, chat_tokenizer, instructions, settings_of(**raw), tmp_path / str(number), QUIET)
        assert (result.samples, result.steps, result.resumed_from) == (12, 1, None)
        losses.append(result.losses[1])
    assert losses == pytest.approx([by_hand(build_model(), chat_tokenizer, instructions)] * 2, rel=1e-4)


@torch.no_grad()
def by_hand(model: Any, tokenizer: Any, dialogues: list[Any]) -> float:
    model, losses = model.double().eval(), []
    for dialogue in dialogues:
        tokens = chat_tokens(tokenizer, "own", dialogue.prompt, dialogue.response)
        logprobs = model(torch.tensor(tokens.ids)[None]).logits[0].log_softmax(-1)
        losses += [-float(logprobs[p - 1, tokens.ids[p]]) for p in range(tokens.start, len(tokens.ids))]
    return sum(losses) / len(losses)


def test_training_lowers_the_loss_and_leaves_the_tokenizer_as_it_was(
    chat_tokenizer: Any, build_model: Any, instructions: list[Any], settings_of: Any, tmp_path: Path
):
    settings, model = settings_of(sft_learning_rate=3e-3, sft_epochs=4, sft_batch_size=6), build_model()
    result = train_sft(model, chat_tokenizer, instructions, settings, tmp_path, QUIET)
    assert result.steps == 8
    assert by_hand(model, chat_tokenizer, instructions) < 0.8 * by_hand(build_model(), chat_tokenizer, instructions)
    # trl would have given it one.
    assert chat_tokenizer.pad_token is None
    assert summary("sft", result).startswith("sft: 8 steps in ")
    assert f"loss {result.losses[1]:.4g} → {result.losses[8]:.4g} nats" in summary("sft", result)


def test_a_step_that_is_not_finite_is_not_taken(
    chat_tokenizer: Any, build_model: Any, instructions: list[Any], settings_of: Any, tmp_path: Path
):
    model = build_model()
    weights = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    with pytest.raises(TrainingError, match=r"sft: the gradient of step 1 is not finite.*sft_learning_rate"):
        train_sft(model, chat_tokenizer, instructions, settings_of(), tmp_path, QUIET)
    assert torch.equal(model.lm_head.weight, weights)


def test_trl_is_not_let_report_to_the_hub(
    chat_tokenizer: Any, build_model: Any, instructions: list[Any], settings_of: Any, tmp_path: Path, monkeypatch: Any
):
    from huggingface_hub import constants
    from trl.trainer import base_trainer

    allowed = []
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.delenv("CI", raising=False)
    seen = lambda **_: allowed.append(not constants.HF_HUB_DISABLE_TELEMETRY)  # noqa: E731
    monkeypatch.setattr(base_trainer, "send_telemetry", seen)
    build_sft_trainer(build_model(), chat_tokenizer, instructions, settings_of(), tmp_path)
    assert allowed == [False]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


def test_without_trl_or_with_several_gpus_for_one_process_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch):
    refuse_machine()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"pip install 'afterword\[align\]'"):
            refuse_machine()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match="Start it with torchrun --nproc_per_node 2"):
        refuse_machine()


@pytest.mark.parametrize(("samples", "warmup", "steps"), [(4, 0.03, 0), (1000, 0.03, 1), (3200, 0.03, 6), (4, 2, 2)])
def test_a_share_of_warm_up_is_rounded_down(settings_of: Any, samples: int, warmup: float, steps: int) -> None:
    arguments = stage_arguments(settings_of(warmup_steps=warmup), "sft", samples, Path("out"))
    assert arguments["warmup_steps"] == steps
