"""The dry run: what would be trained, how long it would take and how much memory, with nothing trained."""

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afterword.config import AdaptSettings
from afterword.objectives.fused import LOGITS_WORKSPACE_MIB
from afterword.training.adapting import load_trainer
from afterword.training.trainer import AdaptationTrainer

_TIMED_STEPS = 3


@dataclass(frozen=True)
class DryRun:
    """Counts are exact for the first epoch; time and memory are extrapolated from three measured steps."""

    data: dict[str, Any]
    """As data.json would have it."""
    totals: dict[str, int]
    """Of the first epoch: targets, trained_positions, student_tokens, teacher_tokens."""
    steps: int
    parameters: int
    trained_parameters: int
    seconds: float
    weights_gib: float
    """Student, teacher, gradients and AdamW's two moments."""
    activations_gib: float
    """Of the largest micro-batch among the measured steps, and the workspace of the logits."""


def dry_run(settings: AdaptSettings, documents: Any = None) -> DryRun:
    """Read the documents, load the model, time forward and backward of three steps. No weight is changed."""
    with tempfile.TemporaryDirectory(prefix="afterword-dry-run-") as scratch:
        trainer, data = load_trainer(settings, documents, Path(scratch))
        totals, steps = _totals(trainer), trainer.total_steps
        seconds_per_token, activations = _measured(trainer)
        read = (totals["student_tokens"] + totals["teacher_tokens"]) * steps / trainer.plan.steps_per_epoch
        parameters = list(trainer.model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        teacher = trainer.teacher.model if trainer.teacher else trainer.model
        twin = teacher.parameters() if teacher is not trainer.model else ()
        weights = sum(p.numel() * p.element_size() for p in (*parameters, *twin))
        # Gradient and two moments, in float32.
        held_gib = (weights + 12 * trained) / 2**30
        passing_gib = activations / 2**30 + 6 * LOGITS_WORKSPACE_MIB / 1024
        counts = (steps, sum(p.numel() for p in parameters), trained)
        return DryRun(data, totals, *counts, seconds_per_token * read, held_gib, passing_gib)


def _totals(trainer: AdaptationTrainer) -> dict[str, int]:
    totals = {"targets": 0, "trained_positions": 0, "student_tokens": 0, "teacher_tokens": 0}
    examples: Any = trainer.train_dataset
    sampler: Any = trainer.get_train_dataloader().batch_sampler
    for example in (examples[draw] for draws in sampler for draw in draws):
        totals["targets"] += len(example.segments)
        totals["trained_positions"] += sum(len(s.target_ids) for s in example.segments)
        totals["student_tokens"] += sum(len(s.student_ids) for s in example.segments)
        totals["teacher_tokens"] += len(example.teacher_ids) if example.teacher_ids is not None else 0
    return totals


def _measured(trainer: AdaptationTrainer) -> tuple[float, int]:
    """Seconds per token that is read, and the most bytes of activations that a step keeps for its backward."""
    steps = list(itertools.islice(trainer.get_train_dataloader(), _TIMED_STEPS))
    # Also the warm-up of what is timed next.
    activations = max(_saved_bytes(trainer, batches) for batches in steps)
    started = time.perf_counter()
    for batches in steps:
        count = trainer._get_num_items_in_batch([batches], trainer.args.device)
        trainer.training_step(trainer.model, batches, count)
        trainer.model.zero_grad()
    if trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
    tokens = trainer.step_counts["student_tokens"] + trainer.step_counts["teacher_tokens"]
    return (time.perf_counter() - started) / tokens, activations


def _saved_bytes(trainer: AdaptationTrainer, batches: Any) -> int:
    """Bytes that autograd keeps of the largest micro-batch; weights are not counted again."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        """Note the storage; views of one count once."""
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Held until it is counted: a freed storage's address would be given out again.
        loss = trainer.compute_loss(trainer.model, max(batches, key=lambda batch: batch.student.tokens))
    total = sum(size for place, size in saved.items() if place not in weights)
    del loss
    return total
