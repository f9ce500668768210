"""Products in bfloat16, and attention in float32 where torch's kernel is faster in it: on CPUs without tile units.

There the kernel's backward pass takes two to three times as long in bfloat16 at 120 to 180 tokens, and rounds
(`benchmarks/step_on_cpu.py`). The rule follows from what the processor has, without a race: a run that goes on computes
as it began.
"""

import contextlib
from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def mixed_precision(device_type: str, *, enabled: bool = True, checkpointed: bool = False) -> Generator[None]:
    """Products of a model in bfloat16, where enabled.

    `checkpointed`: the backward pass reads layers once more. It would read them outside of this, so attention stays.
    """
    raised = enabled and not checkpointed and raises_attention(device_type)
    attention = AttentionInFloat32() if raised else contextlib.nullcontext()
    with torch.autocast(device_type, torch.bfloat16, enabled=enabled), attention:
        yield


def attention_is_raised() -> bool:
    """Whether attention is in float32 here and now, though products are not."""
    modes = torch.overrides._get_current_function_mode_stack()  # pyright: ignore
    return any(isinstance(mode, AttentionInFloat32) for mode in modes)


@cache
def raises_attention(device_type: str) -> bool:
    """Whether attention is left out of autocast here."""
    return device_type == "cpu" and not torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]


class AttentionInFloat32(TorchFunctionMode):
    """Queries, keys and values are raised to float32; what comes of it is in the precision that autocast gives."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Attention raised where autocast is on; anything else as it is."""
        named = kwargs or {}
        if func is not scaled_dot_product_attention or not torch.is_autocast_enabled("cpu"):
            return func(*args, **named)
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return func(*map(_raised, args), **{name: _raised(value) for name, value in named.items()}).to(dtype)


def _raised(value: Any) -> Any:
    """A tensor of numbers in float32; a mask of truths, and what is no tensor, as it is."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
