"""Losses from hidden states: head and divergence in one, the gradient made in the forward pass.

Rows are taken a chunk at a time. A chunk's logits are made once, become the gradient in their own memory, and are
multiplied back at once; what waits for the backward pass is the gradient on hidden states, [N, H], and on the head,
where it is trained: in float32, and rounded once, when the division of the step has been multiplied in. This is the
one door between hidden states and losses, in training and in evaluation.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from afterword.objectives import closed_forms
from afterword.objectives.head import Head
from afterword.objectives.objective import Objective, total
from afterword.objectives.products import add_product, exact_products, raised

LOGITS_WORKSPACE_MIB = 512
"""Bound on all [chunk, V] tensors that live at the same time, of student and teacher together."""
_DENSE_TENSORS = 12
"""Of the dense definition: its own and those that autograd keeps."""
Side = tuple[Tensor, Head]
"""Hidden states [N, H] and the head that reads them."""


def hidden_losses(
    objective: Objective,
    student: Side,
    teacher: Side | None,
    target_ids_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> Tensor:
    """Losses in nats, [N] float32, from hidden states [N, H] and heads of student and teacher. Without gradient.

    Equal to the objective on dense logits. Student and teacher may differ in hidden size and precision.
    """
    return total(objective, hidden_parts(objective, student, teacher, target_ids_N, workspace_mib=workspace_mib))


def hidden_parts(
    objective: Objective,
    student: Side,
    teacher: Side | None,
    target_ids_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> Tensor:
    """The parts of these losses, [N, P] float32, in the order of the objective's coefficients. Without gradient."""
    return _Work(objective, student[1], teacher, target_ids_N, workspace_mib).parts(student[0].detach())


def weighted_sum(
    objective: Objective,
    student: Side,
    teacher: Side | None,
    target_ids_N: Tensor,
    weights_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
    rounds_gradients: bool = False,
) -> tuple[Tensor, Tensor]:
    """Σ weight · loss [] with its gradient on the student, and the parts [N, P] without.

    Nothing is divided. The gradient may be taken once; a head that needs none costs no product for it.
    `rounds_gradients`: on a CPU the products behind the loss are of factors in bfloat16, as autocast has all others;
    those before it never are.
    """
    states_NH, head = student
    rounds = rounds_gradients and states_NH.device.type == "cpu" and head.weight.dtype == torch.float32
    work = _Work(objective, head, teacher, target_ids_N, workspace_mib, rounds)
    if not torch.is_grad_enabled():
        parts_NP = work.parts(states_NH)
        return (weights_N * total(objective, parts_NP)).sum(), parts_NP
    # torch does not say what `apply` takes and gives.
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _WeightedSum.apply)  # pyright: ignore[reportUnknownMemberType]
    return apply(states_NH, head.weight, head.bias, weights_N, work)


def rows_per_chunk(vocabulary: int, workspace_mib: float = LOGITS_WORKSPACE_MIB, tensors: int = 1) -> int:
    """How many rows of so many float32 tensors over the vocabulary fit the workspace; at least one."""
    return max(1, int(workspace_mib * 2**20) // (4 * vocabulary * tensors))


@dataclass(frozen=True, eq=False)
class _Work:
    """All that a loss follows from, but the student's hidden states."""

    objective: Objective
    head: Head
    teacher: Side | None
    target_ids: Tensor
    workspace_mib: float
    rounds_gradients: bool = False

    @property
    def tensors(self) -> int:
        """Over the vocabulary, at a time; under a cap the student's logits are kept beside their gradient."""
        form = self.objective.form
        return (form.tensors if form else _DENSE_TENSORS) + (self.head.softcap is not None)

    def slices(self) -> list[slice]:
        """The chunks."""
        rows = rows_per_chunk(len(self.head.weight), self.workspace_mib, self.tensors)
        whole = len(self.target_ids)
        return [slice(start, min(start + rows, whole)) for start in range(0, whole, rows)]

    @torch.no_grad()
    def parts(self, states_NH: Tensor) -> Tensor:
        """[N, P]."""
        found = [self.chunk(states_NH, rows, gradient=False)[0] for rows in self.slices()]
        return torch.cat(found) if found else raised(states_NH).new_zeros(0, len(self.objective.coefficients))

    def chunk(self, states_NH: Tensor, rows: slice, *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Parts of some rows, [n, P], and the gradient of their losses on h Wᵀ + b, [n, V]."""
        form, states_NH, ids_N = self.objective.form, states_NH[rows], self.target_ids[rows]
        student_NV, teacher_NV = self._logits(states_NH, rows)
        kept_NV = student_NV.clone() if gradient and self.head.softcap is not None else None
        if form is None:
            self._warn(f"{_name(self.objective)} has no closed form (its `form` is None)")
            parts_NP, on_logits = self._dense(student_NV, teacher_NV, ids_N, gradient)
        else:
            found = closed_forms.evaluate(form, student_NV, teacher_NV, ids_N, gradient=gradient)
            del student_NV, teacher_NV  # What of their memory is not the gradient's is free for rows far apart.
            parts_NP = torch.stack([found.parts[part] for part in form.reported], dim=-1)
            on_logits = found.gradient
            if found.far is not None:
                self._put_far(found.far.nonzero().squeeze(-1), states_NH, rows, parts_NP, on_logits)
        return parts_NP, None if on_logits is None else self.head.before_cap(on_logits, kept_NV)

    def _put_far(self, far: Tensor, states_NH: Tensor, rows: slice, parts_NP: Tensor, on_logits: Tensor | None) -> None:
        """Parts and gradient of those rows of a chunk of which the closed form does not hold, by the definition."""
        where = f"the logits of student and teacher differ by more than {closed_forms.FAR:g} nats"
        self._warn(f"The closed form of {_name(self.objective)} does not hold where {where}")
        ids_N = self.target_ids[rows]
        # At most two thirds of the workspace are taken, by the chunk's gradient and by its logits under a cap.
        most = rows_per_chunk(len(self.head.weight), self.workspace_mib / 3, _DENSE_TENSORS)
        for few in torch.split(far, most):
            logits = self._logits(states_NH, rows, few)
            parts_NP[few], dense = self._dense(*logits, ids_N[few], on_logits is not None)
            if on_logits is not None and dense is not None:
                on_logits[few] = dense

    def _logits(
        self, states_NH: Tensor, rows: slice, of_them: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor | None]:
        """The student's and the teacher's; from one product where both read the same head."""
        states_NH = states_NH[of_them]
        if self.teacher is None or not self.objective.needs_teacher:
            return self.head.logits(states_NH), None
        teacher_NH, head = self.teacher[0][rows][of_them], self.teacher[1]
        if head.is_same_as(self.head) and teacher_NH.dtype == states_NH.dtype:
            return self.head.logits(torch.cat([states_NH, teacher_NH])).tensor_split(2)  # pyright: ignore
        return self.head.logits(states_NH), head.logits(teacher_NH)

    def _dense(
        self, student_NV: Tensor, teacher_NV: Tensor | None, ids_N: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The definition, with autograd through dense logits of a few rows."""
        with torch.set_grad_enabled(gradient):
            student_NV.requires_grad_(gradient)
            parts_NP = self.objective.parts(student_NV, teacher_NV, ids_N)
            if not gradient:
                return parts_NP, None
            (on_logits,) = torch.autograd.grad(total(self.objective, parts_NP).sum(), student_NV)
        return parts_NP.detach(), on_logits

    def _warn(self, problem: str) -> None:
        """That the dense path is taken, and what that costs. Python shows it once."""
        rows = rows_per_chunk(len(self.head.weight), self.workspace_mib, _DENSE_TENSORS)
        memory = f"about {_DENSE_TENSORS} float32 tensors over the vocabulary, where a closed form has 1 to 5"
        bound = f"at most {rows:,} positions at a time, to stay within the workspace of {self.workspace_mib:g} MiB"
        instead = f"These losses go through dense logits and autograd: {memory}, so {bound}"
        warnings.warn(f"{problem}. {instead}. Slower, and rounded where the teacher is very near.", stacklevel=2)


class _WeightedSum(torch.autograd.Function):
    """Forward makes the gradients of Σ weight · loss; backward hands them over."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, weights_N: Tensor, work: _Work
    ) -> tuple[Tensor, Tensor]:
        """Σ weight · loss, and the parts."""
        for_states, for_weight, for_bias = ctx.needs_input_grad[:3]
        on_states = _raised_zeros(states_NH) if for_states else None
        on_weight = _raised_zeros(weight_VH) if for_weight else None
        on_bias = _raised_zeros(bias_V) if bias_V is not None and for_bias else None
        found: list[Tensor] = []
        with exact_products(states_NH.device):
            for rows in work.slices():
                parts_NP, on_logits = work.chunk(states_NH, rows, gradient=any(ctx.needs_input_grad[:3]))
                found.append(parts_NP)
                if on_logits is None:
                    continue
                factors = weights_N[rows, None].to(on_logits.dtype)
                if on_states is not None:
                    on_states[rows] = work.head.back(on_logits, rounded=work.rounds_gradients).mul_(factors)
                if on_weight is not None:
                    weighted_NH = raised(states_NH[rows]) * factors
                    add_product(on_weight, on_logits, weighted_NH, rounded=work.rounds_gradients)
                if on_bias is not None:
                    on_bias += on_logits.T @ factors.squeeze(-1)
                del on_logits  # Or it would be there while those of the next rows are made.
        parts_NP = torch.cat(found) if found else work.parts(states_NH)
        ctx.gradients = (on_states, on_weight, on_bias)
        ctx.dtypes = (states_NH.dtype, weight_VH.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(parts_NP)
        return (weights_N * total(work.objective, parts_NP)).sum(), parts_NP

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on_sum: Tensor, _: Tensor) -> tuple[Any, ...]:  # pyright: ignore
        """The gradients, times that on the sum, and only then in the precision of what they are of."""
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "made in the forward pass, and handed over once"
        scaled = (
            None if gradient is None else gradient.mul_(on_sum.to(gradient.dtype)).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None)


def _raised_zeros(like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))


def _name(objective: Objective) -> str:
    """An objective as a person knows it, with the parts that its loss is of."""
    return f"{type(objective).__name__} ({', '.join(objective.coefficients)})"
