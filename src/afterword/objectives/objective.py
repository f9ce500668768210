"""What a method declares: which divergence, at which temperature, and whether it needs a teacher.

The one rule: an objective is a weighted sum of named parts, so that what is reported of a step (the prediction
loss beside the distillation loss, say) is what the gradient was taken of, from the same logits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal, Protocol

import torch
from torch import Tensor

from afterword.method_options import Alpha, Beta, Direction, Floor, HiddenWeight, Swap, Temperature
from afterword.objectives.closed_forms import Form
from afterword.objectives.dense import cross_entropy, forward_kl, jsd, reverse_kl, swapped_kl

_TINY = 1e-12


class Objective(Protocol):
    """Per-position losses in nats, [N] float32, from dense logits and gold tokens."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's logits are read at all; if not, no teacher is loaded."""
        ...

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Parts by name, with unit, and the factor of each in the loss. A part of factor 0 is only reported."""
        ...

    @property
    def form(self) -> Form | None:
        """The same as a closed form, its parts in the order of `coefficients`. None: autograd goes through `parts`."""
        ...

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """[N, V] logits (the teacher's None where it is not needed), [N] gold tokens → [N, parts]."""
        ...


def total(objective: Objective, parts_NP: Tensor) -> Tensor:
    """The loss of every position, [N], from its parts [N, P]."""
    factors = [(i, factor) for i, factor in enumerate(objective.coefficients.values()) if factor]
    return torch.stack([factor * parts_NP[:, i] for i, factor in factors]).sum(0)


@dataclass(frozen=True)
class Distillation:
    """The student moves toward the teacher's whole distribution; the gold token is not used."""

    divergence: Callable[..., Tensor] = forward_kl
    """(student's logits [N, V], teacher's [N, V], temperature=τ) → [N], times τ². Those of dense.py have a closed
    form; any other one goes through dense logits, which is said once (fused.py)."""
    temperature: Temperature = 1.0
    needs_teacher: bool = True

    @property
    def coefficients(self) -> Mapping[str, float]:
        """The divergence alone."""
        name = getattr(self.divergence, "__name__", type(self.divergence).__name__)
        return {f"{name}_nats": 1.0}

    @property
    def form(self) -> Form | None:
        """Known for the divergences of dense.py."""
        known = _DIVERGENCES.get(self.divergence)
        return known and Form(("divergence",), divergence=known, factor=1.0, temperature=self.temperature)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """The divergence at the temperature, times τ²."""
        assert teacher_NV is not None
        return self.divergence(student_NV, teacher_NV, temperature=self.temperature)[:, None]


@dataclass(frozen=True)
class DeepDistillation(Distillation):
    """A divergence, and beside it the distance between the hidden states of student and teacher in every layer.

    Deep context distillation, arXiv:2503.08727. `parts`, `form` and what is done with hidden states of the last layer
    alone are of the divergence; `hidden_distance` is added by whoever has those of all layers, as training has.
    """

    hidden_weight: HiddenWeight = 1.0

    @property
    def coefficients(self) -> Mapping[str, float]:
        """The divergence, and the distance, which is a share of the teacher's states."""
        return {**super().coefficients, "hidden_distance_frac": self.hidden_weight}

    @property
    def on_logits(self) -> Distillation:
        """The divergence alone."""
        return Distillation(self.divergence, self.temperature, self.needs_teacher)


def hidden_distance(student_LNH: Sequence[Tensor], teacher_LNH: Sequence[Tensor]) -> Tensor:
    """[N] float32: of every position the mean over layers of ‖h_S − h_T‖₁ / ‖h_T‖₁, the norms over the width.

    The teacher's states have no gradient. float64 stays float64.
    """
    distances = [
        (ours.to(kind) - theirs.detach().to(kind)).abs().sum(-1)
        / theirs.detach().to(kind).abs().sum(-1).clamp_min(_TINY)
        for ours, theirs in zip(student_LNH, teacher_LNH, strict=True)
        for kind in (torch.promote_types(ours.dtype, torch.float32),)
    ]
    return torch.stack(distances).mean(0)


@dataclass(frozen=True)
class Prediction:
    """The student moves toward the gold next token: cross-entropy, no teacher."""

    needs_teacher: bool = False

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Next-token prediction alone."""
        return {"prediction_nats": 1.0}

    @property
    def form(self) -> Form:
        """Cross-entropy."""
        return Form(("prediction",), 1.0)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−log of the student's probability of the gold token."""
        return cross_entropy(student_NV, target_ids_N)[:, None]


@dataclass(frozen=True)
class AdaptivePrediction:
    """Cross-entropy, each token weighted by max(p^(1/τ), floor), p the student's own probability of it, p ≥ 1e-6.

    No gradient goes through the weight. τ is that of the step, by `for_step`; without one (in an evaluation) every
    token weighs 1. arXiv:2509.20758, its code.
    """

    floor: Floor = 0.01
    needs_teacher: bool = False
    step_temperature: float | None = None

    @property
    def coefficients(self) -> Mapping[str, float]:
        """The weighted prediction, and the plain one beside it."""
        return {"weighted_prediction_nats": 1.0, "prediction_nats": 0.0}

    @property
    def form(self) -> Form:
        """Cross-entropy with weights."""
        return Form(("weighted_prediction", "prediction"), 1.0, token_weights=self._token_weights)

    def for_step(self, mean_losses: Sequence[float]) -> "AdaptivePrediction":
        """The objective of a step whose sequences have these mean losses in nats."""
        return replace(self, step_temperature=max(median(mean_losses), 1e-6))

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−w · log p, and −log p."""
        prediction = cross_entropy(student_NV, target_ids_N)
        return torch.stack([self._token_weights(prediction.detach()) * prediction, prediction], dim=-1)

    def _token_weights(self, prediction_N: Tensor) -> Tensor:
        if self.step_temperature is None:
            return torch.ones_like(prediction_N)
        # p ≥ 1e-6, so −log p ≤ −log 1e-6.
        surprise_N = prediction_N.clamp(max=-math.log(1e-6))
        return torch.exp(-surprise_N / self.step_temperature).clamp(min=self.floor)


@dataclass(frozen=True)
class PredictionNear:
    """Cross-entropy plus β · KL(teacher ‖ student): prediction that stays near the teacher."""

    beta: Beta = 0.1
    temperature: Temperature = 1.0
    needs_teacher: bool = True

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Prediction whole, and β of the divergence."""
        return {"prediction_nats": 1.0, "forward_kl_nats": self.beta}

    @property
    def form(self) -> Form:
        """Cross-entropy and forward KL."""
        return Form(("prediction", "divergence"), 1.0, "forward", self.beta, self.temperature)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−log of the gold token's probability, and the KL at the temperature, times τ²."""
        assert teacher_NV is not None
        divergence = forward_kl(student_NV, teacher_NV, temperature=self.temperature)
        return torch.stack([cross_entropy(student_NV, target_ids_N), divergence], dim=-1)


@dataclass(frozen=True)
class SelfDistillation:
    """α · cross-entropy + (1 − α) · divergence from the teacher, with the gold token swapped to the teacher's top.

    With the swap it is the logit-swap self-distillation of Mix-CPT (arXiv:2407.10804, section 3.2), whose gradient on
    the logits is s − α·δ_y − (1 − α)·q; without it, learning without forgetting. At α = 1 no teacher is read.
    """

    alpha: Alpha = 0.5
    direction: Direction = "forward"
    """`forward`: KL(q ‖ student). The paper's is not readable: ours."""
    temperature: Temperature = 1.0
    swap: Swap = True

    @property
    def needs_teacher(self) -> bool:
        """Whether anything but prediction counts."""
        return self.alpha < 1.0

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Prediction, distillation, and what tells how often the teacher had the gold token right already."""
        if not self.needs_teacher:
            return {"prediction_nats": 1.0}
        factors = {"prediction_nats": self.alpha, "distillation_nats": 1.0 - self.alpha}
        return {**factors, "teacher_top1_frac": 0.0, "teacher_gold_probability": 0.0}

    @property
    def form(self) -> Form:
        """Cross-entropy and a divergence, with the swap or without."""
        if not self.needs_teacher:
            return Form(("prediction",), 1.0)
        parts = ("prediction", "divergence", "teacher_first", "teacher_gold")
        return Form(parts, self.alpha, self.direction, 1.0 - self.alpha, self.temperature, self.swap)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """[N, 4], or [N, 1] at α = 1, in the order of `coefficients`."""
        prediction = cross_entropy(student_NV, target_ids_N)
        if not self.needs_teacher:
            return prediction[:, None]
        assert teacher_NV is not None
        gold = torch.exp(-cross_entropy(teacher_NV, target_ids_N))
        first = (teacher_NV.argmax(dim=-1) == target_ids_N).to(prediction.dtype)
        return torch.stack([prediction, self._divergence(student_NV, teacher_NV, target_ids_N), first, gold], dim=-1)

    def _divergence(self, student_NV: Tensor, teacher_NV: Tensor, target_ids_N: Tensor) -> Tensor:
        reverse = self.direction == "reverse"
        if self.swap:
            return swapped_kl(student_NV, teacher_NV, target_ids_N, temperature=self.temperature, reverse=reverse)
        return (reverse_kl if reverse else forward_kl)(student_NV, teacher_NV, temperature=self.temperature)


@dataclass(frozen=True)
class Comparison:
    """What two models make of the same tokens, from one product with each head. Nothing is trained by it."""

    needs_teacher: bool = True

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Both predictions, and the divergence between them, which is the loss."""
        return {"prediction_nats": 0.0, "teacher_prediction_nats": 0.0, "forward_kl_nats": 1.0}

    @property
    def form(self) -> Form:
        """Forward KL, with what is reported beside it."""
        return Form(("prediction", "teacher_prediction", "divergence"), divergence="forward", factor=1.0)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−log of either's probability of the gold token, and KL(teacher ‖ student)."""
        assert teacher_NV is not None
        both = [cross_entropy(logits, target_ids_N) for logits in (student_NV, teacher_NV)]
        return torch.stack([*both, forward_kl(student_NV, teacher_NV)], dim=-1)


_DIVERGENCES: Mapping[Callable[..., Tensor], Literal["forward", "reverse", "jsd"]] = {
    forward_kl: "forward",
    reverse_kl: "reverse",
    jsd: "jsd",
}
