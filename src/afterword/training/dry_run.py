"""The dry run: what would be trained, how long it would take and how much memory, with nothing trained.

And where it does not fit the machine, what to change, and how much less each change would hold.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from afterword import models
from afterword.data.batching import micro_batches
from afterword.distributed import device_type
from afterword.settings.adapt import AdaptSettings
from afterword.training.memory import Memory, bytes_of, moment_bytes, peak_bytes, updating_bytes
from afterword.training.run import load_trainer
from afterword.training.trainer import AdaptationTrainer
from afterword.training.written_documents import Foreseen
from afterword.types import Batch, Example

_TIMED_STEPS = 3


@dataclass(frozen=True)
class MemorySaving:
    """One change of settings, and about how many bytes less the fullest moment would have."""

    settings: str
    bytes: int


@dataclass(frozen=True)
class DryRun:
    """Counts are exact for the first epoch; time is extrapolated from three steps, memory measured on the largest."""

    data: dict[str, Any]
    """As data.json would have it."""
    totals: dict[str, int]
    """Of the first epoch: targets, trained_positions, student_tokens, teacher_tokens."""
    steps: int
    parameters: int
    trained_parameters: int
    seconds: float
    memory: Memory
    """At the fullest moment of a step."""
    available: int
    """Bytes that this machine has for it: the GPU's memory, or what is free of the machine's."""
    savings: tuple[MemorySaving, ...]
    """What would make it less, the most first; only where it does not fit."""
    cache: int | None = None
    """Bytes that what the teacher says takes on the disk; None where it is not cached."""


def dry_run(settings: AdaptSettings, documents: Any = None) -> DryRun:
    """Read the documents, load the model, time forward and backward of three steps. No weight is changed."""
    available = available_bytes()
    with tempfile.TemporaryDirectory(prefix="afterword-dry-run-") as scratch:
        writing = Foreseen()
        trainer, data = load_trainer(settings, documents, Path(scratch), writing=writing)
        if trainer.method.view.writes:
            data = {**data, "remark": f"{data['remark']} {writing.in_words()}".strip()}
        totals, largest = _totals(trainer)
        memory = memory_of(trainer, settings.optimizer_states, largest)
        cached = _cached(trainer)
        passes, once = trainer.total_steps / trainer.plan.steps_per_epoch, cached[0] if cached else 0
        read = once + passes * (totals["student_tokens"] + (0 if cached else totals["teacher_tokens"]))
        seconds = _seconds_per_token(trainer) * read
        parameters = list(trainer.model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        values = sum(models.shape_of(p).numel() for p in parameters)
        tokens = max(batch.student.tokens for batch in largest)
        return DryRun(
            data=data,
            totals=totals,
            steps=trainer.total_steps,
            parameters=values,
            trained_parameters=trained,
            seconds=seconds,
            memory=memory,
            available=available,
            savings=savings(trainer.model, settings, memory, tokens) if memory.total > available else (),
            cache=cached[1] if cached else None,
        )


def memory_of(trainer: AdaptationTrainer, states: str | None, step: list[Batch]) -> Memory:
    """What training holds at most; `states` as `optimizer_states` says, `step` the micro-batches to measure on."""
    model = trainer.model
    trained = [p for p in model.parameters() if p.requires_grad]
    trained_bytes = bytes_of(trained)
    peak, left = _passing_bytes(trainer, step)
    return Memory(
        weights=bytes_of([*model.parameters(), *model.buffers()]),
        teacher=bytes_of(_teacher_tensors(trainer)),
        gradients=trained_bytes,
        moments=sum(moment_bytes(p, states) for p in trained),
        kept=trained_bytes * (bool(trainer.pull) + bool(trainer.average) + bool(trainer.teacher_average)),
        passing=max(0, peak - trained_bytes),
        updating=max(0, left - trained_bytes) + updating_bytes(trained, states),
    )


def largest_step(trainer: AdaptationTrainer) -> list[Batch]:
    """The micro-batches of the first epoch's largest step, which `memory_of` measures on."""
    return _totals(trainer)[1]


def _teacher_tensors(trainer: AdaptationTrainer) -> list[torch.Tensor]:
    """The teacher's own tensors: none where it is the student's weights."""
    teacher = trainer.teacher
    if teacher is None or isinstance(teacher, models.AdapterOff):
        return []
    if trainer.caching or isinstance(teacher, models.HeadOnly | models.Offloaded):
        head = teacher.head()
        return [tensor for tensor in (head.weight, head.bias) if tensor is not None]
    return [*teacher.model.parameters(), *teacher.model.buffers()]


def _cached(trainer: AdaptationTrainer) -> tuple[int, int] | None:
    """Tokens that a cached teacher reads once, and the bytes that are kept of them; None where it is not cached."""
    if trainer.caching is None or trainer.teacher is None:
        return None
    with trainer.autocast():
        return trainer.caching_teacher().size(trainer.teacher_reads_in_all())


def _totals(trainer: AdaptationTrainer) -> tuple[dict[str, int], list[Batch]]:
    """Counts of the first epoch, and the micro-batches of its largest step."""
    totals = {"targets": 0, "trained_positions": 0, "student_tokens": 0, "teacher_tokens": 0}
    loader, largest, most = trainer.get_train_dataloader(), list[Example](), -1
    for step in ([trainer.examples[draw] for draw in draws] for draws in loader.draws):
        student = sum(len(s.student_ids) for example in step for s in example.segments)
        teacher = sum(len(example.teacher_ids) for example in step if example.teacher_ids is not None)
        totals["targets"] += sum(len(example.segments) for example in step)
        totals["trained_positions"] += sum(len(s.target_ids) for example in step for s in example.segments)
        totals["student_tokens"] += student
        totals["teacher_tokens"] += teacher
        if student + teacher > most:
            largest, most = step, student + teacher
    return totals, micro_batches(largest, trainer.packing)


def _seconds_per_token(trainer: AdaptationTrainer) -> float:
    """Of forward and backward, per token that is read; the processor is warm by now."""
    steps = list(itertools.islice(trainer.get_train_dataloader(), _TIMED_STEPS))
    trainer.step_counts.clear()
    started = time.perf_counter()
    for batches in steps:
        _forward_and_backward(trainer, batches)
    if trainer.args.device.type == "cuda":
        torch.cuda.synchronize()
    tokens = trainer.step_counts["student_tokens"] + trainer.step_counts["teacher_tokens"]
    return (time.perf_counter() - started) / tokens


def _passing_bytes(trainer: AdaptationTrainer, step: list[Batch]) -> tuple[int, int]:
    """The most that forward and backward of a step add to what is held, and what is left of it: gradients included."""
    args, inner = trainer.args, models.causal_lm(trainer.model)
    # Newer versions of transformers speak of activations. The Trainer does it when it begins to train.
    if getattr(args, "activation_checkpointing", args.gradient_checkpointing):
        getattr(inner, "activation_checkpointing_enable", inner.gradient_checkpointing_enable)()
    found = peak_bytes(trainer.args.device, lambda: _forward_and_backward(trainer, step))
    trainer.model.zero_grad()
    return found


def _forward_and_backward(trainer: AdaptationTrainer, step: list[Batch]) -> None:
    trainer.model.zero_grad()
    count = trainer.count_weights([step])
    trainer.training_step(trainer.model, step, count)


def available_bytes() -> int:
    """The memory of the GPU, or what is free of the machine's."""
    if device_type() == "cuda":
        return torch.cuda.mem_get_info()[1]
    return psutil.virtual_memory().available


def savings(model: Any, settings: AdaptSettings, memory: Memory, tokens: int) -> tuple[MemorySaving, ...]:
    """Every change that helps, alone, the largest first. `tokens`: what the student reads in a micro-batch."""
    changes = (
        *_by_weights(model, settings, memory),
        *_by_activations(model, settings, memory, tokens),
        *_by_teacher(model, settings, memory),
    )
    found = (MemorySaving(name, memory.total - after.total) for name, after in changes)
    return tuple(sorted((each for each in found if each.bytes > 0), key=lambda each: -each.bytes))


def _by_weights(model: Any, settings: AdaptSettings, memory: Memory) -> Iterator[tuple[str, Memory]]:
    if settings.use_peft:
        if not settings.load_in_4bit:
            layers = [layer.base_layer.weight for layer in model.modules() if hasattr(layer, "base_layer")]
            yield "load_in_4bit: true", replace(memory, weights=memory.weights - _less_in_4bit(layers))
        return
    r, element = settings.lora_r, torch.finfo(torch.float32).bits // 8
    adapters = element * sum(r * (layer.in_features + layer.out_features) for layer in _layers(model))
    half = [torch.empty_like(p, dtype=torch.bfloat16, device="meta") for p in model.parameters()]
    base = memory.weights if settings.precision == "float32" else bytes_of(half)
    adapted = Memory(
        weights=base + adapters,
        teacher=0,
        gradients=adapters,
        moments=2 * adapters,
        kept=0,
        passing=memory.passing,
        updating=2 * adapters,
    )
    yield "use_peft: true", adapted
    if (settings.precision, settings.optimizer_states) == ("bf16", "8bit"):
        return
    after = replace(
        memory,
        weights=bytes_of(half),
        gradients=bytes_of(half),
        teacher=min(memory.teacher, bytes_of(half)),
        moments=sum(moment_bytes(p, "8bit") for p in half),
        updating=updating_bytes(half, "8bit"),
    )
    yield "precision: bf16 with optimizer_states: 8bit", after


def _less_in_4bit(weights: list[torch.Tensor]) -> int:
    """Bytes that weights have more than in 4 bits, with a scale of a byte for 64 values."""
    return sum(int(weight.numel() * (weight.element_size() - 0.5 - 1 / 64)) for weight in weights)


def _by_activations(model: Any, settings: AdaptSettings, memory: Memory, tokens: int) -> Iterator[tuple[str, Memory]]:
    config, half = models.causal_lm(model).config, max(16, tokens // 2)
    if not settings.gradient_checkpointing:
        layers = config.num_hidden_layers
        element = 2 if settings.precision == "bf16" else 4
        # What goes into every layer is kept, and all of one layer at a time.
        kept = layers * tokens * config.hidden_size * element
        yield "gradient_checkpointing: true", replace(memory, passing=kept + memory.passing // layers)
    yield f"micro_batch_tokens: {half}, and max_length no more", replace(memory, passing=memory.passing // 2)


def _by_teacher(model: Any, settings: AdaptSettings, memory: Memory) -> Iterator[tuple[str, Memory]]:
    if not memory.teacher:
        return
    head = models.head_of(model).weight
    share = head.numel() / max(1, sum(p.numel() for p in model.parameters()))
    yield "teacher: cached", replace(memory, teacher=int(share * memory.teacher))
    if settings.teacher_precision not in models.BITS:
        element = memory.teacher / max(1, sum(p.numel() for p in model.parameters()))
        less = sum(layer.weight.numel() for layer in _layers(model)) * (element - 1)
        yield "teacher_precision: int8", replace(memory, teacher=int(memory.teacher - less))


def _layers(model: Any) -> list[nn.Linear]:
    """Linear layers of the backbone."""
    return [module for module in models.backbone_of(model).modules() if isinstance(module, nn.Linear)]
