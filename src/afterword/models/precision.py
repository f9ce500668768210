"""Which arithmetic this machine is really faster in: measured, not believed of what a processor says that it has.

Some processors with bfloat16 instructions multiply in them at half the speed of float32, others at several times it.
"""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from afterword.distributed import device_type, process_count
from afterword.models.checks import has_bfloat16, has_bfloat16_units
from afterword.models.load import load_config
from afterword.models.stored_precision import StoredModel

CLEARLY_FASTER = 1.3
"""How many times as fast bfloat16 has to be: below it, rounding buys nothing that is noticed."""
_ROWS = 256
_LARGEST = 1024
"""Of a hidden state, in the race: larger ones are as fast per product, and would take longer than a start may."""
_ROUNDS = 5
_LIMIT_SECONDS = 0.3


def resolved_precision(asked: str, name: str | None = None) -> str:
    """`auto` decided for a model of that name, as measured here; without a name by what a GPU has."""
    if asked != "auto":
        return asked
    return unmeasured_precision() if name is None else measured_precision(name)


def measured_precision(name: str) -> str:
    """`bf16_mixed` or `float32`: what training and reading are faster in here, for a model of that name.

    A GPU is asked what it has. On a processor a layer of the model's own width is raced forward and backward in both,
    once in a process. Several processes would not all find the same, and stay in float32.
    """
    if device_type() == "cuda":
        return unmeasured_precision()
    if process_count() > 1 or not has_bfloat16_units():
        return "float32"
    return "bf16_mixed" if bf16_speedup(*layer_shape(load_config(name))) >= CLEARLY_FASTER else "float32"


def evaluation_dtype(paths: Sequence[str], precision: str = "auto") -> torch.dtype:
    """What weights are held and products are made in, of all models alike.

    `auto`: bfloat16 where every one of them is stored in it, and so served in it, and where this machine is clearly
    faster at it; else float32, which holds every stored value.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    served = all(StoredModel(path).dtype == torch.bfloat16 for path in paths)
    return torch.bfloat16 if served and measured_precision(paths[-1]) == "bf16_mixed" else torch.float32


def unmeasured_precision() -> str:
    """What `auto` means for a run that was begun without a race: bf16 autocast on GPUs that have it."""
    return "bf16_mixed" if has_bfloat16() else "float32"


@cache
def bf16_speedup(hidden: int, inner: int) -> float:
    """How many times as fast a layer [256, hidden] x [hidden, inner] is under bf16 autocast, its gradient included.

    In processor time of one thread, the best of each: what else the machine does at the same time counts little.
    """
    threads, rounds = torch.get_num_threads(), list[tuple[float, float]]()
    torch.set_num_threads(1)
    try:
        layer, states = nn.Linear(hidden, inner, bias=False), torch.ones(_ROWS, hidden)
        began = time.perf_counter()
        # The first round of either makes what the next ones use again.
        while len(rounds) < 2 or (len(rounds) < _ROUNDS and time.perf_counter() - began < _LIMIT_SECONDS):
            rounds.append((_seconds(layer, states, half=False), _seconds(layer, states, half=True)))
    finally:
        torch.set_num_threads(threads)
    plain, half = (min(seconds) for seconds in zip(*rounds[1:], strict=True))
    return plain / max(half, 1e-9)


@torch.enable_grad()
def _seconds(layer: nn.Linear, states: torch.Tensor, *, half: bool) -> float:
    layer.zero_grad()
    began = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        product = layer(states.requires_grad_())
    product.backward(torch.ones_like(product))
    return time.thread_time() - began


def layer_shape(config: Any) -> tuple[int, int]:
    """Hidden and inner width of a model's layers, made smaller in proportion where they are large."""
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", None) or _LARGEST
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    if isinstance(inner, list | tuple):  # Of layers of different width.
        inner = max(inner)
    shrink = max(1, -(-hidden // _LARGEST))
    return hidden // shrink, min(inner // shrink, 4 * _LARGEST)
