"""The shape of a weight, also of one that is packed into fewer bytes than it has values."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def shape_of(weight: Any) -> torch.Size:
    """The shape that products see; of a weight in 4 bits not that of its bytes."""
    state = getattr(weight, "quant_state", None)
    return torch.Size(weight.shape if state is None else state.shape)


def scales_of(weight: Any) -> Iterator[Tensor]:
    """The tensors beside the bytes of a weight in 4 bits that its values follow from; of any other none."""
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (part for part in (state.absmax, state.code) if isinstance(part, Tensor))
        state = state.state2
