"""Divergences between the next-token distributions of a student and a teacher: the definitions.

Every function takes logits of shape [N, V], student first, and returns one loss per position, [N], in
nats. None of them masks, averages or reads a configuration: which positions count and what the sum is
divided by is decided once, in the training step. Half-precision logits are raised to float32 first, so a
loss always leaves in float32 (float64 stays float64, for references).

A divergence at temperature τ is multiplied by τ², so that its gradient keeps its scale when τ changes
(Hinton et al. 2015, arXiv:1503.02531, section 2).
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def forward_kl(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student) · τ². Large where the teacher has mass that the student has not."""
    student, teacher = _logprobs(student_NV, temperature), _logprobs(teacher_NV, temperature)
    return temperature**2 * _kl(teacher, student)


def reverse_kl(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(student ‖ teacher) · τ². Large where the student has mass that the teacher has not."""
    student, teacher = _logprobs(student_NV, temperature), _logprobs(teacher_NV, temperature)
    return temperature**2 * _kl(student, teacher)


def jsd(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Jensen–Shannon divergence · τ²: the mean KL of both to their mixture. At most τ² · ln 2."""
    student, teacher = _logprobs(student_NV, temperature), _logprobs(teacher_NV, temperature)
    mixture = torch.logaddexp(student, teacher) - math.log(2)
    return temperature**2 * 0.5 * (_kl(teacher, mixture) + _kl(student, mixture))


def swapped_kl(
    student_NV: Tensor, teacher_NV: Tensor, target_ids_N: Tensor, *, temperature: float = 1.0, reverse: bool = False
) -> Tensor:
    """KL(q ‖ student) · τ², q the teacher with its largest logit and the gold token's exchanged.

    `reverse`: KL(student ‖ q). Mix-CPT's logit swap (Jiang et al. 2024, arXiv:2407.10804, section 3.2). It leaves the
    softmax's normaliser as it is, so q is the teacher's p with p_i and p_y exchanged, and both divergences are those
    of p plus one gathered term (METHODS §2); no second [N, V] tensor is made.
    """
    student, teacher = _logprobs(student_NV, temperature), _logprobs(teacher_NV, temperature)
    pairs = torch.stack([teacher.argmax(dim=-1), target_ids_N], dim=-1)
    (s_first, s_gold), (p_first, p_gold) = (each.gather(-1, pairs).unbind(-1) for each in (student, teacher))
    if reverse:
        correction = (s_first.exp() - s_gold.exp()) * (p_first - p_gold)
        return temperature**2 * (_kl(student, teacher) + correction)
    correction = (p_first.exp() - p_gold.exp()) * (s_first - s_gold)
    return temperature**2 * (_kl(teacher, student) + correction)


def of_logprobs(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A divergence from a function of log-probabilities: student's [N, V], teacher's [N, V] → [N], in nats.

    At a temperature τ it is given those at τ, and its result is multiplied by τ².
    """

    @functools.wraps(function)
    def divergence(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Of logits."""
        student, teacher = _logprobs(student_NV, temperature), _logprobs(teacher_NV, temperature)
        return temperature**2 * function(student, teacher)

    return divergence


def cross_entropy(student_NV: Tensor, target_ids_N: Tensor) -> Tensor:
    """−log of the student's probability of the gold next token."""
    return functional.cross_entropy(_raised(student_NV), target_ids_N, reduction="none")


def _raised(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _logprobs(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(_raised(logits) / temperature, dim=-1)


def _kl(p_logprobs: Tensor, q_logprobs: Tensor) -> Tensor:
    # Padding columns of a vocabulary must be cut off by the caller, not set to -inf: exp(-inf) * (-inf) is
    # nan, and one nan is enough to lose the run.
    return (p_logprobs.exp() * (p_logprobs - q_logprobs)).sum(dim=-1)
