"""Tensors in a narrower precision: to the nearest value, or to either neighbour with a probability.

Stochastic rounding keeps a value on average: x between its neighbours a < b becomes b with the probability
(x − a) / (b − a). So an update that is smaller than the distance of two values is not lost as a whole: of many weights
that each move by a tenth of it, one in ten moves by all of it.

The one rule: what is drawn follows from (seed, name) alone, so the same weights are rounded the same way on every
device and in every process.
"""

import hashlib

import torch
from torch import Tensor

PIECE_VALUES = 2**24
"""Rounded or compared at a time: intermediate results are of a piece, not of a whole weight."""


def is_narrower(dtype: torch.dtype, held: torch.dtype) -> bool:
    """Whether values of the precision `held` are rounded in `dtype`.

    >>> is_narrower(torch.bfloat16, torch.float32), is_narrower(torch.float32, torch.bfloat16)
    (True, False)
    """
    if not (dtype.is_floating_point and held.is_floating_point):
        return False
    ours, theirs = torch.finfo(dtype), torch.finfo(held)
    return ours.eps > theirs.eps or ours.max < theirs.max


def can_round_stochastically(dtype: torch.dtype) -> bool:
    """Whether the neighbours of a value are known: of precisions of two bytes."""
    return dtype in (torch.bfloat16, torch.float16)


def nearest(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values rounded to the nearest of a precision, held as they were."""
    return values.to(dtype).to(values.dtype)


def stochastic(values: Tensor, dtype: torch.dtype, *, seed: int, name: str) -> Tensor:
    """Float32 values rounded to either neighbour of a precision of two bytes, held in float32."""
    assert can_round_stochastically(dtype), "asked before"
    generator = torch.Generator().manual_seed(_seed_of(seed, name))
    rounded = torch.empty_like(values, memory_format=torch.contiguous_format)
    whole = values.reshape(-1)
    for piece, place in zip(whole.split(PIECE_VALUES), rounded.view(-1).split(PIECE_VALUES), strict=True):
        # Drawn on the CPU, where every machine draws the same.
        drawn = torch.rand(piece.shape, generator=generator).to(piece.device)
        place.copy_(_either_neighbour(piece, dtype, drawn))
    return rounded


def _either_neighbour(values: Tensor, dtype: torch.dtype, drawn: Tensor) -> Tensor:
    near = values.to(dtype)
    error = values - near.float()
    # The bits of a float without its sign count its values from zero up: one more is the next one away from zero.
    outward = (error > 0) != torch.signbit(near)
    bits = near.view(torch.int16)
    other = torch.where(outward, bits + 1, bits - 1).view(dtype).float()
    # A value that is exact has no other side; and the largest has infinity on it.
    apart = (other - near.float()).abs()
    moves = (error != 0) & torch.isfinite(apart) & (drawn * apart < error.abs())
    return torch.where(moves, other, near.float())


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")
