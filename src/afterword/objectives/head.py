"""A language model's head as tensors: from hidden states to logits, and from gradients on logits back."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from afterword.objectives.products import exact_products, product, product_back, rounded_product_back


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
        """[N, H] → [N, V] in float32 (float64 for float64 hidden states), a tensor that may be overwritten.

        Autocast and TF32 are switched off: student and teacher start equal, and logits rounded to bfloat16 lose the
        gradient of a small KL (80 % error at 5e-4 nats).
        """
        with torch.no_grad(), exact_products(hidden_NH.device):
            logits_NV = product(hidden_NH, self.weight)
            if self.bias is not None:
                logits_NV += self.bias.to(logits_NV.dtype)
            if self.scale != 1.0:
                logits_NV *= self.scale
            if self.softcap is not None:
                logits_NV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_NV

    def to(self, device: torch.device) -> "Head":
        """The same on a device."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)

    def is_same_as(self, other: "Head") -> bool:
        """Whether both are the same tensors, read in the same way."""
        pairs = ((self.weight, other.weight), (self.bias, other.bias))
        same = all(a is b or (a is not None and b is not None and _is_one(a, b)) for a, b in pairs)
        return same and (self.scale, self.softcap) == (other.scale, other.softcap)

    def before_cap(self, gradient_NV: Tensor, logits_NV: Tensor | None) -> Tensor:
        """The gradient on h Wᵀ + b, from that on the logits, which are read where there is a cap. Overwrites both."""
        if self.softcap is not None:
            assert logits_NV is not None, "the slope of the cap follows from the logits"
            gradient_NV *= logits_NV.div_(self.softcap).square_().neg_().add_(1.0)
        return gradient_NV.mul_(self.scale) if self.scale != 1.0 else gradient_NV

    def back(self, gradient_NV: Tensor, *, rounded: bool = False) -> Tensor:
        """[N, V], on h Wᵀ + b → [N, H] on the hidden states; of rounded factors where asked for."""
        return rounded_product_back(gradient_NV, self.weight) if rounded else product_back(gradient_NV, self.weight)


def _is_one(a: Tensor, b: Tensor) -> bool:
    where = (a.data_ptr(), a.shape, a.stride(), a.dtype, a.device)
    return a.numel() > 0 and where == (b.data_ptr(), b.shape, b.stride(), b.dtype, b.device)
