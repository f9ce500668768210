"""Losses from hidden states, so that the logits of a whole batch never exist at once.

Rows are taken a chunk at a time; in the backward pass a chunk's logits are computed again. The workspace is
a few [chunk, V] tensors whatever the number of positions. This is the one door between hidden states and
losses: a fused kernel replaces `hidden_losses` and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from afterword.objectives.heads import Head
from afterword.objectives.objective import Objective

LOGITS_WORKSPACE_MIB = 64
"""Bytes of one [chunk, V] float32 tensor. About six of them live at the same time."""


def hidden_losses(
    objective: Objective,
    student: tuple[Tensor, Head],
    teacher: tuple[Tensor, Head] | None,
    target_ids_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> Tensor:
    """Losses in nats, [N] float32, from hidden states [N, H] and heads of student and teacher.

    Student and teacher may differ in hidden size and precision. Equal to the objective on dense logits.
    """
    student_NH, student_head = student
    rows = rows_per_chunk(student_head.weight.shape[0], workspace_mib)
    # A method without a teacher has nothing to split in step with the student.
    teacher_chunks = teacher[0].split(rows) if teacher else [None] * len(student_NH.split(rows))
    losses = [
        _chunk(objective, student_chunk, student_head, teacher_chunk, teacher, target_chunk)
        for student_chunk, teacher_chunk, target_chunk in zip(
            student_NH.split(rows), teacher_chunks, target_ids_N.split(rows), strict=True
        )
    ]
    return torch.cat(losses)


def rows_per_chunk(vocabulary: int, workspace_mib: float = LOGITS_WORKSPACE_MIB) -> int:
    """How many rows of float32 logits fit the workspace; at least one."""
    return max(1, int(workspace_mib * 2**20) // (4 * vocabulary))


def _chunk(
    objective: Objective,
    student_NH: Tensor,
    student_head: Head,
    teacher_NH: Tensor | None,
    teacher: tuple[Tensor, Head] | None,
    target_ids_N: Tensor,
) -> Tensor:
    def losses(student_NH: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_NV = teacher[1].logits(teacher_NH) if teacher and teacher_NH is not None else None
        return objective(student_head.logits(student_NH), teacher_NV, target_ids_N)

    if not torch.is_grad_enabled():
        return losses(student_NH)
    # Nothing random happens in a head, so the random state need not be kept for the second forward.
    return checkpoint(losses, student_NH, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore
