"""Direct preference optimisation on the selected pairs by trl (Rafailov et al. 2023, arXiv:2305.18290).

The one rule: the reference is the model that DPO starts from, the result of SFT, and not what its configuration
names. That is checked where it shows: the first loss, before any step, is ln 2.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console

from afterword.alignment.stages import StageResult, stage_arguments, train_stage, without_telemetry
from afterword.corpus import Dialogue
from afterword.errors import TrainingError
from afterword.models import frozen_copy, has_adapter
from afterword.settings.align import AlignSettings

_TOLERANCE_NATS = 1e-4
_REFERENCE_ADAPTER = "ref"
"""trl's name for the frozen copy of an adapter."""


def train_dpo(
    model: Any,
    tokenizer: Any,
    dialogues: Sequence[Dialogue],
    settings: AlignSettings,
    folder: Path,
    console: Console,
    *,
    measured: bool = False,
) -> StageResult:
    """Train the model in place; checkpoints go to `folder`. TrainingError where the first loss is not ln 2.

    `measured` as of `train_stage`.
    """
    trainer = build_dpo_trainer(model, tokenizer, dialogues, settings, folder)
    result = train_stage(trainer, "dpo", dialogues, console, measured=measured)
    if has_adapter(model):
        model.delete_adapter(_REFERENCE_ADAPTER)
    return result


def build_dpo_trainer(
    model: Any, tokenizer: Any, dialogues: Sequence[Dialogue], settings: AlignSettings, folder: Path
) -> Any:
    """trl's DPOTrainer with a copy of the model as reference; of an adapter, trl's own frozen copy of it."""
    from trl import DPOConfig, DPOTrainer  # pyright: ignore  # made on demand by trl

    class CheckedTrainer(DPOTrainer):
        """Stops at a first loss that says that the reference is another model."""

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            """trl's own loss; of the first step it must be ln 2."""
            loss = super().compute_loss(*arguments, **named)
            if self.state.global_step == 0:
                refuse_other_reference(loss.item())
            return loss

    arguments = DPOConfig(
        **stage_arguments(settings, "dpo", len(dialogues), folder), beta=settings.dpo_beta, disable_dropout=True
    )
    rows = [{"prompt": list(d.prompt), "chosen": [d.messages[-1]], "rejected": _rejected(d)} for d in dialogues]
    # Left to itself, trl loads what the configuration of a full model names, which is not what SFT made of it.
    reference = None if has_adapter(model) else frozen_copy(model).model
    with without_telemetry():
        own, data = copy.deepcopy(tokenizer), Dataset.from_list(rows)
        return CheckedTrainer(model, reference, arguments, processing_class=own, train_dataset=data)


def refuse_other_reference(first_loss_nats: float) -> None:
    """TrainingError where the first DPO loss is not ln 2, the loss of a model that is its own reference."""
    if not abs(first_loss_nats - math.log(2)) <= _TOLERANCE_NATS:
        problem = f"the first loss is {first_loss_nats:.4f} nats and not ln 2 = {math.log(2):.4f}"
        cause = "the model reads otherwise than its reference, as under an attention_dropout in its config.json"
        raise TrainingError(f"dpo: {problem}: {cause}. Set it to 0, or align with --instructions alone.")


def _rejected(dialogue: Dialogue) -> list[dict[str, str]]:
    assert dialogue.rejected is not None, "the corpus was read as preferences"
    return [{"role": "assistant", "content": dialogue.rejected}]
