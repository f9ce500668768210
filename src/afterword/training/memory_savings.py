"""What to change where training does not fit a machine, and how much less each change would hold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import nn

from afterword import models
from afterword.settings.adapt import AdaptSettings
from afterword.training.memory import Memory, bytes_of, moment_bytes, updating_bytes


@dataclass(frozen=True)
class MemorySaving:
    """One change of settings, and about how many bytes less the fullest moment would have."""

    settings: str
    bytes: int


def available_bytes() -> int:
    """The memory of the GPU, or what is free of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    return psutil.virtual_memory().available


def savings(model: Any, settings: AdaptSettings, memory: Memory, tokens: int) -> tuple[MemorySaving, ...]:
    """Every change that helps, alone, the largest first. `tokens`: what the student reads in a micro-batch."""
    changes = {
        **dict(_of_weights(model, settings, memory)),
        **dict(_of_activations(model, settings, memory, tokens)),
        **dict(_of_teacher(model, settings, memory)),
    }
    found = (MemorySaving(name, memory.total - after.total) for name, after in changes.items())
    return tuple(sorted((each for each in found if each.bytes > 0), key=lambda each: -each.bytes))


def _of_weights(model: Any, settings: AdaptSettings, memory: Memory) -> Iterator[tuple[str, Memory]]:
    if settings.use_peft:
        return
    r, element = settings.lora_r, torch.finfo(torch.float32).bits // 8
    adapters = element * sum(r * (layer.in_features + layer.out_features) for layer in _layers(model))
    half = [torch.empty_like(p, dtype=torch.bfloat16, device="meta") for p in model.parameters()]
    base = memory.weights if settings.precision == "float32" else bytes_of(half)
    alone = {"teacher": 0, "gradients": adapters, "moments": 2 * adapters, "kept": 0, "updating": 2 * adapters}
    yield "use_peft: true", replace(memory, weights=base + adapters, **alone)
    if (settings.precision, settings.optimizer_states) == ("bf16", "8bit"):
        return
    teacher = min(memory.teacher, bytes_of(half)) if memory.teacher else 0
    held = {"weights": bytes_of(half), "gradients": bytes_of(half), "teacher": teacher}
    moments = sum(moment_bytes(p, "8bit") for p in half)
    after = replace(memory, **held, moments=moments, updating=updating_bytes(half, "8bit"))
    yield "precision: bf16 with optimizer_states: 8bit", after


def _of_activations(model: Any, settings: AdaptSettings, memory: Memory, tokens: int) -> Iterator[tuple[str, Memory]]:
    config, half = models.causal_lm(model).config, max(16, tokens // 2)
    if not settings.gradient_checkpointing:
        layers = config.num_hidden_layers
        element = 2 if settings.precision == "bf16" else 4
        # What goes into every layer is kept, and all of one layer at a time.
        kept = layers * tokens * config.hidden_size * element
        yield "gradient_checkpointing: true", replace(memory, passing=kept + memory.passing // layers)
    yield f"micro_batch_tokens: {half}, and max_length no more", replace(memory, passing=memory.passing // 2)


def _of_teacher(model: Any, settings: AdaptSettings, memory: Memory) -> Iterator[tuple[str, Memory]]:
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
