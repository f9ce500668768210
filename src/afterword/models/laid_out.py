"""Weights in the order that a processor's kernels read them in, for as long as texts are written.

Left as they are, torch puts a weight in order anew for every product. Of a step that writes a token of ten rows that is
a quarter of the time or more (`benchmarks/laid_out.py`). Of reading it is a twentieth, which is not worth the copy.

The one rule: the factors of a product, and the precision that they are in, are those that they would be otherwise.
"""

import contextlib
from collections.abc import Generator, Iterator
from functools import cache, partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn

_FREE_SHARE = 0.5
"""Of the memory that is free, what the second copy of the weights may take."""


@contextlib.contextmanager
def laid_out(model: Any, rows: int) -> Generator[None]:
    """While the block runs, a model's linear layers read weights that are laid out for products of so many rows.

    Nothing changes where it would not help or is not known to be the same: on other devices than a CPU, for layers of
    other kinds, where memory is short. No gradient is taken within, and no weight changed.
    """
    layers = list(_layers(model)) if _known() else []
    size = sum(layer.weight.numel() * _dtype(layer.weight).itemsize for layer in layers)
    if size > _FREE_SHARE * psutil.virtual_memory().available:
        layers = []
    try:
        for layer in layers:
            weight = layer.weight.detach().to(_dtype(layer.weight))
            kept = _ops()._reorder_linear_weight(weight, rows)
            bias = None if layer.bias is None else layer.bias.detach().to(weight.dtype)
            vars(layer)["forward"] = partial(_product, kept, bias, weight.dtype)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _product(kept: Tensor, bias: Tensor | None, dtype: torch.dtype, states: Tensor) -> Tensor:
    return _ops()._linear_pointwise(states.to(dtype), kept, bias, "none", [], "")


def _layers(model: Any) -> Iterator[nn.Linear]:
    """Those that are nothing but a product with a weight here."""
    for layer in model.modules():
        if type(layer) is nn.Linear and "forward" not in vars(layer) and _is_plain(layer.weight):
            yield layer


def _is_plain(weight: Tensor) -> bool:
    # Sharded and quantised weights are tensors of other classes.
    plain = type(weight) is nn.Parameter and type(weight.data) is Tensor and weight.device.type == "cpu"
    return plain and _dtype(weight) in (torch.float32, torch.bfloat16) and _multiplies(_dtype(weight))


def _dtype(weight: Tensor) -> torch.dtype:
    """What a product with the weight is made in."""
    if torch.is_autocast_enabled("cpu") and weight.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return weight.dtype


def _ops() -> Any:
    return torch.ops.mkldnn  # pyright: ignore[reportUnknownMemberType]  (made on demand)


@cache
def _known() -> bool:
    """Whether this build of torch has what compiled models are made of on a CPU."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(_ops(), name) for name in names)


@cache
def _multiplies(dtype: torch.dtype) -> bool:
    return dtype != torch.bfloat16 or bool(_ops()._is_mkldnn_bf16_supported())
