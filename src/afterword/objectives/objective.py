"""What a method declares: which divergence, at which temperature, and whether it needs a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from afterword.objectives.dense import cross_entropy


class Objective(Protocol):
    """Per-position losses in nats, [N] float32, from dense logits and gold tokens."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's logits are read at all; if not, no teacher is loaded."""
        ...

    def __call__(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """[N, V] logits (the teacher's None where it is not needed), [N] gold tokens → [N] losses."""
        ...


@dataclass(frozen=True)
class Distillation:
    """The student moves toward the teacher's whole distribution; the gold token is not used."""

    divergence: Callable[..., Tensor]
    temperature: float = 1.0
    needs_teacher: bool = True

    def __call__(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """The divergence at the temperature, times τ²."""
        assert teacher_NV is not None
        return self.divergence(student_NV, teacher_NV, temperature=self.temperature)


@dataclass(frozen=True)
class Prediction:
    """The student moves toward the gold next token: cross-entropy, no teacher."""

    needs_teacher: bool = False

    def __call__(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−log of the student's probability of the gold token."""
        return cross_entropy(student_NV, target_ids_N)
