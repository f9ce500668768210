"""The last layer of a language model as plain tensors: hidden states in, float32 logits out."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """logits = softcap · tanh((scale · (h Wᵀ + b)) / softcap), the last two only where the model has them."""

    weight: Tensor  # [V, H]
    bias: Tensor | None = None  # [V]
    scale: float = 1.0
    """Multiplies the logits (Cohere's `logit_scale`; Granite's `logits_scaling` is its inverse)."""
    softcap: float | None = None
    """Gemma's `final_logit_softcapping`."""

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """[N, H] → [N, V], computed and returned in float32 (float64 for float64 hidden states).

        Autocast is switched off: student and teacher start equal, and logits rounded to bfloat16 lose the
        gradient of a small KL (80 % error at 5e-4 nats).
        """
        dtype = torch.float64 if hidden_NH.dtype == torch.float64 else torch.float32
        with torch.autocast(hidden_NH.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.to(dtype)
            logits = functional.linear(hidden_NH.to(dtype), self.weight.to(dtype), bias)
            if self.scale != 1.0:
                logits = logits * self.scale
            if self.softcap is not None:
                logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits
