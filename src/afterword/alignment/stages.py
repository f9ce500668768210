"""What SFT and DPO share: trl's arguments, checkpoints that count, and a stop before a step that is not finite.

The one rule: a stage starts from a saved model and ends in one, and a stage that was stopped goes on from its last
whole checkpoint.
"""

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback

from afterword import models
from afterword.distributed import device_type, is_main_process, process_count, wait_for_all
from afterword.errors import ConfigError, TrainingError
from afterword.settings.align import AlignSettings, Stage
from afterword.storage.atomic import write_manifest
from afterword.training.callbacks import RichProgress
from afterword.training.checkpoints import checkpoint_step, last_complete_checkpoint

_SAMPLED = 32
"""Samples that the loss is measured on by which saving is decided."""


@dataclass(frozen=True)
class StageResult:
    """What a stage did."""

    samples: int
    steps: int
    tokens: int
    """Read in training, prompts and responses, over all passes; of pairs both sides."""
    seconds: float
    """Of the call that finished it."""
    resumed_from: int | None
    """Step of the checkpoint that was resumed from."""
    losses: Mapping[int, float]
    """Mean loss of the samples of a step, by step, in nats: a token's for SFT, a pair's for DPO."""
    loss: Callable[[], float] | None = field(default=None, repr=False)
    """On some of the samples, in float32, of the model as it is at the moment; None where that was not asked for."""
    loss_before: float | None = None
    """The same before the stage."""

    def to_json(self) -> dict[str, Any]:
        """As align.json keeps it."""
        return {name: value for name, value in vars(self).items() if name not in ("loss", "loss_before")}


def refuse_machine() -> None:
    """ConfigError where trl is not installed, or where one process has several GPUs."""
    if importlib.util.find_spec("trl") is None:
        raise ConfigError("align: needs trl, which is not installed. Install it: pip install 'afterword[align]'.")
    if process_count() == 1 and (gpus := torch.cuda.device_count()) > 1:
        problem = f"a process trains on one GPU, and this one sees {gpus}"
        raise ConfigError(f"align: {problem}. Start it with torchrun --nproc_per_node {gpus}, or let it see one GPU.")


def refuse_uneven(settings: AlignSettings, stage: Stage, samples: int) -> None:
    """ConfigError where several processes could not share every step evenly.

    trl would fill the last step with samples that were read before, and the result would be another than one process's.
    """
    processes, batch = process_count(), _batch(settings, stage, samples)
    shares = processes * settings.gradient_accumulation_steps
    kind = "instruction" if stage == "sft" else "preference"
    if batch % shares:
        problem = f"{stage}_batch_size: {batch} samples of a step are not the same number for {shares} parts"
        raise ConfigError(f"{problem} ({processes} processes). Give a multiple of {shares}.")
    if processes > 1 and samples % batch:
        problem = f"{kind}_count: of {samples} samples the last step of {batch} would not be whole"
        remedy = f"Give {samples - samples % batch}, or start it in one process"
        raise ConfigError(f"{problem}, which {processes} processes cannot share. {remedy}.")


def _batch(settings: AlignSettings, stage: Stage, samples: int) -> int:
    """Samples of an optimizer step, over all processes."""
    parts = settings.gradient_accumulation_steps
    # A batch that is not full still has to be cut into as many parts.
    return min(settings.stage(stage)["batch_size"], -(-samples // parts) * parts)


def stage_arguments(settings: AlignSettings, stage: Stage, samples: int, folder: Path) -> dict[str, Any]:
    """Arguments of trl's configuration that both stages have. Every sample is trained whole: no `max_length`."""
    own, parts = settings.stage(stage), settings.gradient_accumulation_steps
    batch = _batch(settings, stage, samples)
    steps, warmup = -(-samples // batch) * own["epochs"], settings.warmup_steps
    return {
        "output_dir": str(folder),
        "learning_rate": own["learning_rate"],
        "num_train_epochs": own["epochs"],
        "per_device_train_batch_size": batch // parts // process_count(),
        "gradient_accumulation_steps": parts,
        # Said also where it is off: trl's own default is on.
        "gradient_checkpointing": settings.gradient_checkpointing,
        "lr_scheduler_type": "linear",
        # A share is rounded down: transformers rounds up, and the only step of a short stage would be of rate 0.
        "warmup_steps": warmup if warmup >= 1 else int(warmup * steps),
        "max_length": None,
        "bf16": models.resolved_precision(settings.precision) == "bf16_mixed",
        "use_cpu": device_type() == "cpu",
        "dataloader_pin_memory": device_type() == "cuda",
        "seed": settings.seed,
        "save_steps": settings.save_steps,
        # The one before the last is kept until the last has its manifest.
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def trainable(model: Any, settings: AlignSettings) -> Any:
    """The model with what is trained of it: its adapter, a fresh one where LoRA is asked for, else every weight."""
    if models.has_adapter(model):
        models.refuse_unsafe_adapters(model)
        # Loaded adapters are frozen.
        model.set_adapter("default")
        return model
    return models.with_lora(model, models.LoraSettings(), settings.seed) if settings.use_peft else model


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """trl reports every trainer that is made to the hub; not those made in here."""
    from huggingface_hub import constants

    before, constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_TELEMETRY, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def train_stage(
    trainer: Any, stage: Stage, samples: Sequence[Any], console: Console, *, measured: bool = False
) -> StageResult:
    """Train to the end, from the last whole checkpoint of the trainer's folder where there is one.

    `measured`: what saving the model loses will be asked, so the loss before is computed.
    """
    checkpoint = last_complete_checkpoint(Path(trainer.args.output_dir))
    loss = _sampled_loss(trainer) if measured else None
    before = loss() if loss else None
    trainer.remove_callback(PrinterCallback)
    progress = RichProgress(console, f"{stage}: step")
    trainer.add_callback(_Watch(stage))
    trainer.add_callback(progress)
    began = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.stop()
    losses = {int(row["step"]): float(row["loss"]) for row in trainer.state.log_history if "loss" in row}
    tokens = max((int(row["num_tokens"]) for row in trainer.state.log_history if "num_tokens" in row), default=0)
    seconds, resumed_from = time.monotonic() - began, checkpoint_step(checkpoint) if checkpoint else None
    return StageResult(len(samples), trainer.state.global_step, tokens, seconds, resumed_from, losses, loss, before)


def _sampled_loss(trainer: Any) -> Callable[[], float]:
    """The mean loss of the first samples, as trl has it, of the model as it is; in float32, without dropout."""
    data = trainer.train_dataset.select(range(min(_SAMPLED, len(trainer.train_dataset))))
    batches = list(DataLoader(data, batch_size=4, collate_fn=trainer.data_collator))

    def loss() -> float:
        """The mean over the batches, in nats."""
        # accelerate's autocast is around the forward of a model that was trained under it.
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        with models.only_reading(model):
            of_batches = [float(trainer.compute_loss(model, trainer._prepare_inputs(batch))) for batch in batches]
        return sum(of_batches) / len(of_batches)

    return loss


def summary(stage: Stage, result: StageResult) -> str:
    """A line about a stage that is done: its losses are means of the first and the last tenth of its steps."""
    losses, tenth = list(result.losses.values()), max(1, len(result.losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    return f"{stage}: {result.steps:,} steps in {result.seconds:.0f} s, loss {first:.4g} → {last:.4g} nats"


class _Watch(TrainerCallback):
    """Writes manifests of checkpoints, and stops before a step whose gradient is not finite."""

    def __init__(self, stage: Stage):
        self.stage: Stage = stage

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint counts once it has its manifest."""
        # Every process has saved the state of its random numbers.
        wait_for_all()
        if is_main_process():
            write_manifest(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """TrainingError where the loss, and with it the gradient, is not finite."""
        if not all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            place = f"{self.stage}: the gradient of step {state.global_step + 1} is not finite, and was not applied"
            raise TrainingError(f"{place}. Lower {self.stage}_learning_rate, or use precision: float32.")
