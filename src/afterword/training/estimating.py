"""The dry run: what would be trained, how long it would take and how much memory, with nothing trained."""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afterword.config import AdaptSettings
from afterword.corpus import Corpus
from afterword.objectives.chunked import LOGITS_WORKSPACE_MIB
from afterword.training.adapting import Parts, load_parts, total_steps
from afterword.training.steps import Draw
from afterword.training.trainer import AdaptationTrainer
from afterword.views import PreparedCounts

_TIMED_STEPS = 3
_GIB = 2**30


@dataclass(frozen=True)
class DryRun:
    """Counts are exact for the first epoch; time and memory are extrapolated from three measured steps."""

    corpus: Corpus
    counts: PreparedCounts
    targets: int
    """Student segments in the first epoch."""
    trained_positions: int
    student_tokens: int
    teacher_tokens: int
    steps: int
    parameters: int
    trained_parameters: int
    seconds: float
    weights_gib: float
    """Student, teacher, gradients and AdamW's two moments."""
    activations_gib: float
    """Of the largest micro-batch among the measured steps, and the workspace of the logits."""

    @property
    def memory_gib(self) -> float:
        """Weights and activations together; the process's own few hundred MiB are not counted."""
        return self.weights_gib + self.activations_gib


def dry_run(settings: AdaptSettings, documents: Any = None) -> DryRun:
    """Read the documents, load the model, time forward and backward of three steps. No weight is changed."""
    with tempfile.TemporaryDirectory(prefix="afterword-dry-run-") as scratch:
        parts = load_parts(settings, documents, Path(scratch))
        trainer = parts.trainer(Path(scratch))
        return _estimated(parts, trainer)


def _estimated(parts: Parts, trainer: AdaptationTrainer) -> DryRun:
    totals = _totals(trainer)
    seconds_per_token, activations = _measured(trainer)
    steps = total_steps(trainer)
    epochs = steps / trainer.plan.steps_per_epoch
    parameters = list(trainer.model.parameters())
    return DryRun(
        corpus=parts.corpus,
        counts=parts.windows.counts,
        steps=steps,
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        seconds=seconds_per_token * epochs * (totals["student_tokens"] + totals["teacher_tokens"]),
        weights_gib=_weight_bytes(trainer) / _GIB,
        activations_gib=activations / _GIB + 6 * LOGITS_WORKSPACE_MIB / 1024,
        **totals,
    )


def _totals(trainer: AdaptationTrainer) -> dict[str, int]:
    examples = trainer.train_dataset
    totals = {"targets": 0, "trained_positions": 0, "student_tokens": 0, "teacher_tokens": 0}
    for index in range(len(trainer.windows)):
        example = examples[Draw(index, 0)]
        totals["targets"] += len(example.segments)
        totals["trained_positions"] += sum(len(s.target_ids) for s in example.segments)
        totals["student_tokens"] += sum(len(s.student_ids) for s in example.segments)
        totals["teacher_tokens"] += len(example.teacher_ids) if example.teacher_ids is not None else 0
    return totals


def _measured(trainer: AdaptationTrainer) -> tuple[float, int]:
    """Seconds per token that is read, and the bytes of activations that one step keeps for its backward."""
    steps = list(itertools.islice(trainer.get_train_dataloader(), _TIMED_STEPS + 1))
    model, device = trainer.model, trainer.args.device
    activations = max(_saved_bytes(trainer, batches) for batches in steps)
    started, tokens = time.perf_counter(), 0
    for batches in steps[-_TIMED_STEPS:]:
        trainer.training_step(model, batches, trainer._get_num_items_in_batch([batches], device))
        tokens += sum(b.student.tokens + (b.teacher.tokens if b.teacher else 0) for b in batches)
        model.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / max(tokens, 1), activations


def _saved_bytes(trainer: AdaptationTrainer, batches: Any) -> int:
    """Bytes that autograd keeps of the largest micro-batch; weights are not counted again."""
    largest = max(batches, key=lambda batch: batch.student.tokens)
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Kept until it is counted: a freed storage's address would be given out again.
        loss = trainer.compute_loss(trainer.model, largest)
    del loss
    return sum(saved.values())


def _weight_bytes(trainer: AdaptationTrainer) -> int:
    own = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    twin = getattr(trainer.teacher, "model", None)
    twin = None if twin is trainer.model else twin
    copied = sum(p.numel() * p.element_size() for p in twin.parameters()) if twin is not None else 0
    # Gradient and two moments, in float32.
    return own + copied + 12 * trained
