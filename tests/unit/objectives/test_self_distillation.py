"""Mix-CPT's objective against the logits swapped one position at a time, in float64 (METHODS §2 and §6)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afterword.objectives import PredictionNear, SelfDistillation, cross_entropy, forward_kl, swapped_kl, total

ROWS, VOCABULARY = 40, 11


def draw(seed: int) -> Tensor:
    return 2 * torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = draw(1), draw(2)
TARGETS = torch.randint(VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(3))
# Some positions where the teacher is right already: there the swap does nothing.
TARGETS[::4] = TEACHER.argmax(-1)[::4]


def swapped(teacher: Tensor, targets: Tensor) -> Tensor:
    """The definition: the largest logit and the gold token's, exchanged."""
    out = teacher.clone()
    for row, gold in enumerate(targets.tolist()):
        first = int(teacher[row].argmax())
        out[row, first], out[row, gold] = teacher[row, gold], teacher[row, first]
    return out


def loss(objective: SelfDistillation | PredictionNear, student: Tensor, teacher: Tensor | None = TEACHER) -> Tensor:
    return total(objective, objective.parts(student, teacher, TARGETS))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_identity_is_the_swap(temperature: float) -> None:
    q = torch.softmax(swapped(TEACHER, TARGETS) / temperature, -1)
    s = torch.softmax(STUDENT / temperature, -1)
    forward = temperature**2 * (q * (q.log() - s.log())).sum(-1)
    reverse = temperature**2 * (s * (s.log() - q.log())).sum(-1)
    how = {"temperature": temperature}
    torch.testing.assert_close(swapped_kl(STUDENT, TEACHER, TARGETS, **how), forward, rtol=1e-12, atol=1e-12)
    ours = swapped_kl(STUDENT, TEACHER, TARGETS, reverse=True, **how)
    torch.testing.assert_close(ours, reverse, rtol=1e-12, atol=1e-12)


def test_where_the_teacher_is_right_the_swap_does_nothing() -> None:
    right = TEACHER.argmax(-1) == TARGETS
    ours, plain = swapped_kl(STUDENT, TEACHER, TARGETS), forward_kl(STUDENT, TEACHER)
    assert torch.equal(ours[right], plain[right])
    assert (ours != plain)[~right].all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_gradient_is_that_of_a_soft_label(alpha: float) -> None:
    student = STUDENT.clone().requires_grad_()
    loss(SelfDistillation(alpha=alpha), student).sum().backward()
    q = torch.softmax(swapped(TEACHER, TARGETS), -1)
    gold = torch.nn.functional.one_hot(TARGETS, VOCABULARY).double()
    expected = torch.softmax(STUDENT, -1) - alpha * gold - (1 - alpha) * q
    torch.testing.assert_close(student.grad, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal((alpha * gold + (1 - alpha) * q).argmax(-1), TARGETS)


def test_alpha_1_is_cross_entropy_and_reads_no_teacher() -> None:
    objective = SelfDistillation(alpha=1.0)
    assert not objective.needs_teacher
    assert torch.equal(loss(objective, STUDENT, None), cross_entropy(STUDENT, TARGETS))


def test_without_the_swap_it_is_learning_without_forgetting() -> None:
    ours = loss(SelfDistillation(alpha=0.25, temperature=2.0, swap=False), STUDENT)
    s, p = torch.softmax(STUDENT / 2, -1), torch.softmax(TEACHER / 2, -1)
    gold = -torch.log_softmax(STUDENT, -1)[torch.arange(ROWS), TARGETS]
    torch.testing.assert_close(ours, 0.25 * gold + 0.75 * 4 * (p * (p.log() - s.log())).sum(-1))


def test_the_student_is_not_swapped_and_the_direction_is_the_one_asked_for() -> None:
    s, p = torch.softmax(STUDENT, -1), torch.softmax(TEACHER, -1)
    ours = loss(SelfDistillation(alpha=0.0, swap=False, direction="reverse"), STUDENT)
    torch.testing.assert_close(ours, (s * (s.log() - p.log())).sum(-1))


def test_what_is_reported_beside_the_loss() -> None:
    objective = SelfDistillation()
    parts = dict(zip(objective.coefficients, objective.parts(STUDENT, TEACHER, TARGETS).unbind(-1), strict=True))
    assert torch.equal(parts["teacher_top1_frac"].bool(), TEACHER.argmax(-1) == TARGETS)
    gold = torch.softmax(TEACHER, -1)[torch.arange(ROWS), TARGETS]
    torch.testing.assert_close(parts["teacher_gold_probability"], gold)
    torch.testing.assert_close(loss(objective, STUDENT), (parts["prediction_nats"] + parts["distillation_nats"]) / 2)


def test_prediction_near_the_teacher_is_a_sum() -> None:
    ours = loss(PredictionNear(beta=0.1), STUDENT)
    torch.testing.assert_close(ours, cross_entropy(STUDENT, TARGETS) + 0.1 * forward_kl(STUDENT, TEACHER))


def test_bfloat16_logits_leave_in_float32() -> None:
    parts = SelfDistillation().parts(STUDENT.bfloat16(), TEACHER.bfloat16(), TARGETS)
    assert parts.dtype == torch.float32
