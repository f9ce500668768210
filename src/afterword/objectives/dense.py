"""Divergences between the next-token distributions of a student and a teacher: the definitions.

Every function takes logits of shape [N, V], student first, and returns one loss per position, [N], in
nats. None of them masks, averages or reads a configuration: which positions count and what the sum is
divided by is decided once, in the training step. Half-precision logits are raised to float32 first, so a
loss always leaves in float32 (float64 stays float64, for references).

A divergence at temperature τ is multiplied by τ², so that its gradient keeps its scale when τ changes
(Hinton et al. 2015, arXiv:1503.02531, section 2).
"""

import math

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
