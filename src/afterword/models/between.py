"""All the models between what was given and what was trained, in the place of the one that was trained.

The one rule: at share 1 every weight is, bit for bit, what was trained; at share 0 the model says what it did before.
"""

from typing import Any

import torch
from torch import Tensor

from afterword.models.interpolation import keeps_direction, scales_update


class Between:
    """The way θ0 + λ(θ − θ0) of the weights that are trained (WiSE-FT, arXiv:2109.01903), walked in place.

    Made before the first step: it keeps the trained weights as they are then, on the CPU, and, once `at` is first
    called, what they have become. Of a LoRA the update is scaled by λ, so that it stays on the straight way.
    """

    def __init__(self, model: Any):
        self.model = model
        self.start = _held(model)
        self.end: dict[str, Tensor] | None = None

    @torch.no_grad()
    def at(self, share: float) -> None:
        """Put the weights at λ = `share` into the model."""
        if self.end is None:
            self.end = _held(self.model)
        for name, weight in _trained(self.model):
            start, end = self.start[name], self.end[name]
            if share == 1 or keeps_direction(name):
                value = end
            elif scales_update(name):
                value = share * end.float()
            else:
                value = torch.lerp(start.float(), end.float(), share)
            weight.copy_(value)


def _trained(model: Any) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _held(model: Any) -> dict[str, Tensor]:
    """Copies on the CPU, in the precision that they are trained in."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in _trained(model)}
