"""Supervised fine-tuning on the selected instructions by trl; of a conversation, only the last response is trained."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from afterword.alignment.stages import StageResult, stage_arguments, train_stage, without_telemetry
from afterword.corpus import Dialogue
from afterword.settings.align import AlignSettings


def train_sft(
    model: Any,
    tokenizer: Any,
    dialogues: Sequence[Dialogue],
    settings: AlignSettings,
    folder: Path,
    console: Console,
    *,
    measured: bool = False,
) -> StageResult:
    """Train the model in place; checkpoints go to `folder`. `measured` as of `train_stage`."""
    trainer = build_sft_trainer(model, tokenizer, dialogues, settings, folder)
    return train_stage(trainer, "sft", dialogues, console, measured=measured)


def build_sft_trainer(
    model: Any, tokenizer: Any, dialogues: Sequence[Dialogue], settings: AlignSettings, folder: Path
) -> Any:
    """trl's SFTTrainer on prompt/completion rows in the tokenizer's chat template."""
    from trl import SFTConfig, SFTTrainer  # pyright: ignore  # made on demand by trl

    arguments = SFTConfig(**stage_arguments(settings, "sft", len(dialogues), folder), completion_only_loss=True)
    rows = [{"prompt": list(d.prompt), "completion": [d.messages[-1]]} for d in dialogues]
    with without_telemetry():
        # trl gives a tokenizer without a padding token one; what is saved keeps what it was given.
        own = copy.deepcopy(tokenizer)
        return SFTTrainer(model, arguments, processing_class=own, train_dataset=Dataset.from_list(rows))
