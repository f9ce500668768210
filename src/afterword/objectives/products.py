"""Matrix products of a head whose results are float32, whatever its precision is.

Student and teacher start equal: logits rounded to bfloat16 lose the gradient of a small KL. Half-precision factors
are multiplied exactly and summed in float32; where a device offers that only for part of the types, factors are
raised to float32 a block at a time. The one rule: nothing here rounds a logit.
"""

import contextlib
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2 * 2**20
"""Of a half-precision weight that are float32 at a time: 8 MiB, which stay in a processor's cache."""
_SAMPLED_ROWS = 1024
"""Of a weight, for the mean of its rows."""
_HALF = (torch.bfloat16, torch.float16)


def product(hidden_NH: Tensor, weight_VH: Tensor) -> Tensor:
    """[N, H] · [V, H]ᵀ → [N, V], float32 (float64 for float64 hidden states)."""
    if hidden_NH.is_cuda and hidden_NH.dtype == weight_VH.dtype and weight_VH.dtype in _HALF:
        return torch.mm(hidden_NH, weight_VH.T, out_dtype=torch.float32)
    raised_NH = raised(hidden_NH)
    if weight_VH.dtype == raised_NH.dtype:
        return raised_NH @ weight_VH.T
    out_NV = raised_NH.new_empty(len(hidden_NH), len(weight_VH))
    with _exact_bfloat16(hidden_NH, weight_VH):
        for block in _blocks(weight_VH):
            torch.mm(raised_NH, weight_VH[block].to(raised_NH.dtype).T, out=out_NV[:, block])
    return out_NV


def product_back(gradient_NV: Tensor, weight_VH: Tensor) -> Tensor:
    """[N, V] · [V, H] → [N, H]: the gradient on hidden states, float32.

    Beside a bfloat16 weight the gradient is rounded to bfloat16 first where that is faster: 0.1 % of its norm. What
    that loses of a row's sum, which is 0 of most losses, is given back along the mean row of the weight: rows of a
    head may have much in common. It is never rounded to float16, where most probabilities of a large vocabulary are 0.
    """
    if gradient_NV.is_cuda and weight_VH.dtype == torch.bfloat16:
        product_NH = torch.mm(gradient_NV.bfloat16(), weight_VH, out_dtype=torch.float32)
        return product_NH.addr_(_lost(gradient_NV), _mean_row(weight_VH))
    if weight_VH.dtype == gradient_NV.dtype:
        return gradient_NV @ weight_VH
    out_NH = gradient_NV.new_zeros(len(gradient_NV), weight_VH.shape[1])
    with _exact_bfloat16(weight_VH, weight_VH) as rounds:
        for block in _blocks(weight_VH):
            out_NH.addmm_(gradient_NV[:, block], weight_VH[block].to(gradient_NV.dtype))
    return out_NH.addr_(_lost(gradient_NV), _mean_row(weight_VH)) if rounds else out_NH


def rounded_product_back(gradient_NV: Tensor, weight_VH: Tensor) -> Tensor:
    """The same of factors in bfloat16, for a CPU that is faster in them: less than 0.4 % of its norm.

    The mean row of the weight is taken out before, and multiplied with the sum of a row of the gradient in float32.
    """
    mean_H = _mean_row(weight_VH)
    out_NH = torch.outer(raised(gradient_NV).sum(-1), mean_H)
    for block in _blocks(weight_VH):
        out_NH += gradient_NV[:, block].bfloat16() @ (weight_VH[block] - mean_H).bfloat16()
    return out_NH


def add_product(sum_VH: Tensor, gradient_NV: Tensor, hidden_NH: Tensor, *, rounded: bool = False) -> None:
    """Add [N, V]ᵀ · [N, H] to the gradient on a weight; of factors in bfloat16 where asked for, added in float32."""
    if not rounded:
        sum_VH.addmm_(gradient_NV.T, hidden_NH)
        return
    half_NH = hidden_NH.bfloat16()
    for block in _blocks(sum_VH):
        sum_VH[block] += gradient_NV[:, block].bfloat16().T @ half_NH


@contextlib.contextmanager
def exact_products(device: torch.device) -> Generator[None]:
    """Products in the precision of their factors: autocast is off, and on a GPU so is TF32.

    TF32 leaves 10 bits of a float32 factor. Trainers (`tf32`, `torch_compile`) and some machines' environments have it
    on for all of torch.
    """
    with torch.autocast(device.type, enabled=False):
        settings: Any = torch.backends.cuda.matmul
        # Asked and set in the one of torch's two ways that does not refuse where the other was used before.
        rounds = device.type == "cuda" and settings.fp32_precision == "tf32"
        if not rounds:
            yield
            return
        settings.fp32_precision = "ieee"
        try:
            yield
        finally:
            settings.fp32_precision = "tf32"


def raised(values: Tensor) -> Tensor:
    """Float32; float64 stays what it is."""
    return values if values.dtype == torch.float64 else values.float()


def _blocks(weight_VH: Tensor) -> Iterator[slice]:
    rows = max(1, _BLOCK_ELEMENTS // weight_VH.shape[1])
    return (slice(start, start + rows) for start in range(0, len(weight_VH), rows))


def _mean_row(weight_VH: Tensor) -> Tensor:
    """[H], of some rows from everywhere: what all have in common is what matters."""
    return weight_VH[:: max(1, len(weight_VH) // _SAMPLED_ROWS)].float().mean(0)


def _lost(gradient_NV: Tensor) -> Tensor:
    """[N]: what a row's sum loses when it is rounded to bfloat16; a few rows at a time, which stay in a cache."""
    rows = len(gradient_NV) if gradient_NV.is_cuda else max(1, _BLOCK_ELEMENTS // 8 // gradient_NV.shape[1])
    few = torch.split(gradient_NV, max(1, rows))
    return torch.cat([each.sum(-1) - each.bfloat16().float().sum(-1) for each in few])


@contextlib.contextmanager
def _exact_bfloat16(*factors: Tensor) -> Generator[bool]:
    """Products of float32 tensors in bfloat16 units, summed in float32: exact where the factors were bfloat16 before.

    Only on processors that have such units; elsewhere nothing changes. Gives whether factors are rounded.
    """
    usable = all(factor.dtype == torch.bfloat16 and factor.device.type == "cpu" for factor in factors)
    if not usable or not _rounds_to_bfloat16():
        yield False
        return
    with _bfloat16_units():
        yield True


@cache
@torch.no_grad()
def _rounds_to_bfloat16() -> bool:
    """Whether products are rounded when bfloat16 units are asked for: on some processors torch leaves them alone."""
    # A build without oneDNN, as those for Apple's processors, has not even the question.
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    with _bfloat16_units():
        # A little more than 1, which bfloat16 does not know.
        rounded = torch.full((256, 256), 1.0 + 2.0**-12) @ torch.ones(256, 256)
    return bool((rounded == 256.0).all())


@contextlib.contextmanager
def _bfloat16_units() -> Generator[None]:
    # Made on demand by torch.
    settings = cast(Any, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    before: str = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before
