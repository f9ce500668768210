"""Losses from hidden states, so that the logits of a whole batch never exist at once.

Rows are taken a chunk at a time; in the backward pass a chunk's logits are computed again. The workspace is
a few [chunk, V] tensors whatever the number of positions. This is the one door between hidden states and
losses: a fused kernel replaces `hidden_parts` and nothing else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from afterword.objectives.objective import Objective, total

LOGITS_WORKSPACE_MIB = 64
"""Bytes of one [chunk, V] float32 tensor. About six of them live at the same time."""


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


def hidden_losses(
    objective: Objective,
    student: tuple[Tensor, Head],
    teacher: tuple[Tensor, Head] | None,
    target_ids_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> Tensor:
    """Losses in nats, [N] float32, from hidden states [N, H] and heads of student and teacher."""
    return total(objective, hidden_parts(objective, student, teacher, target_ids_N, workspace_mib=workspace_mib))


def hidden_parts(
    objective: Objective,
    student: tuple[Tensor, Head],
    teacher: tuple[Tensor, Head] | None,
    target_ids_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> Tensor:
    """The parts of the losses, [N, P] float32, from hidden states [N, H] and heads of student and teacher.

    Student and teacher may differ in hidden size and precision. Equal to the objective on dense logits.
    """
    student_NH, student_head = student
    rows = rows_per_chunk(student_head.weight.shape[0], workspace_mib)

    def losses(student_NH: Tensor, teacher_NH: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """The objective's parts on dense logits of a few rows."""
        with torch.no_grad():
            teacher_NV = teacher[1].logits(teacher_NH) if teacher and teacher_NH is not None else None
        return objective.parts(student_head.logits(student_NH), teacher_NV, target_ids_N)

    def chunk(start: int) -> Tensor:
        """Losses of the rows from `start`, whose logits are made again in the backward."""
        part = slice(start, start + rows)
        arguments = (student_NH[part], teacher[0][part] if teacher else None, target_ids_N[part])
        if not torch.is_grad_enabled():
            return losses(*arguments)
        # Nothing random happens in a head, so the random state need not be kept for the second forward.
        return checkpoint(losses, *arguments, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore

    return torch.cat([chunk(start) for start in range(0, len(student_NH), rows)])


def rows_per_chunk(vocabulary: int, workspace_mib: float = LOGITS_WORKSPACE_MIB) -> int:
    """How many rows of float32 logits fit the workspace; at least one."""
    return max(1, int(workspace_mib * 2**20) // (4 * vocabulary))
