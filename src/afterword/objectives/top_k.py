"""Losses from a teacher of whom only the k likeliest tokens are kept, with everything else as one bucket.

Kept of a position: the k largest logits with their ids, the gold token's logit, and for every temperature τ the
logarithms of the normaliser and of the rest's mass. With O the k tokens and the gold one, and τ² as everywhere,

    KL ≈ τ² · ( Σ_{v ∈ O} p_v (log p_v − log s_v)  +  p_R (log p_R − log s_R) ),    p_R = Σ_{v ∉ O} p_v,  s_R likewise

which is the KL of the two distributions once the tokens of the rest are not told apart. It is never more than the
exact KL and equals it where the student shares out the rest as the teacher does; its gradient on the student's logits
is s − p on O and s · (1 − p_R / s_R) on the rest, where the exact one is s − p. The logit swap exchanges p_i and p_y,
which are both in O, so the rest does not know of it. Nothing is approximated once k is the vocabulary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from afterword.objectives.dense import cross_entropy, forward_kl
from afterword.objectives.fused import LOGITS_WORKSPACE_MIB, Side, _WeightedSum, _Work
from afterword.objectives.objective import Distillation, Objective, PredictionNear, SelfDistillation, total
from afterword.objectives.products import raised

_EXACT_IDS = 2**24
"""Integers below are exact in float32."""


def keeps_enough(objective: Objective) -> bool:
    """Whether the k likeliest tokens serve it: a forward KL, with the swap or without, or no teacher at all."""
    if isinstance(objective, Distillation):
        return objective.divergence is forward_kl
    if isinstance(objective, SelfDistillation):
        return objective.direction == "forward" or not objective.needs_teacher
    return isinstance(objective, PredictionNear) or not objective.needs_teacher


def temperatures_of(objectives: Iterable[Objective]) -> tuple[float, ...]:
    """Those that these losses read a teacher at; 1 among them, for what is reported of the gold token."""
    return tuple(sorted({1.0, *(getattr(each, "temperature", 1.0) for each in objectives if each.needs_teacher)}))


@dataclass(frozen=True)
class TopK:
    """How the k likeliest tokens lie in a row: ids, their logits, the gold token's, normalisers, masses of the rest."""

    k: int
    temperatures: tuple[float, ...] = (1.0,)

    @property
    def width(self) -> int:
        """Values in a row."""
        return 2 * self.k + 1 + 2 * len(self.temperatures)

    def pack(self, logits_NV: Tensor, gold_ids_N: Tensor) -> Tensor:
        """[N, V] logits of the teacher and [N] gold tokens → rows [N, width]."""
        assert self.k <= logits_NV.shape[-1] < _EXACT_IDS
        logits_NV, gold_N1 = raised(logits_NV), gold_ids_N[:, None]
        top_NK, ids_NK = logits_NV.topk(self.k, dim=-1)
        rest_NV = logits_NV.scatter(-1, torch.cat([ids_NK, gold_N1], dim=-1), -torch.inf)
        whole = [torch.logsumexp(logits_NV / t, dim=-1, keepdim=True) for t in self.temperatures]
        rest = [torch.logsumexp(rest_NV / t, dim=-1, keepdim=True) for t in self.temperatures]
        return torch.cat([ids_NK.to(top_NK.dtype), top_NK, logits_NV.gather(-1, gold_N1), *whole, *rest], dim=-1)

    def left_out(self, rows: Tensor) -> Tensor:
        """[N, T]: at every temperature, the probability of all that is in the one bucket."""
        count = len(self.temperatures)
        return (rows[:, -count:] - rows[:, -2 * count : -count]).exp()

    def ids(self, rows: Tensor) -> Tensor:
        """[N, k] int64, the likeliest first."""
        return rows[:, : self.k].long()

    def logprobs(self, rows: Tensor, gold_ids_N: Tensor, temperature: float = 1.0) -> Tensor:
        """[N, k + 2]: of the k tokens, the gold one, and the rest. −∞ where there is none: gold is among the k."""
        place, k = self.temperatures.index(temperature), self.k
        normaliser_N1 = rows[:, 2 * k + 1 + place, None]
        rest_N1 = rows[:, 2 * k + 1 + len(self.temperatures) + place, None]
        found_NK = rows[:, k : 2 * k + 1] / temperature - normaliser_N1
        known_N = (self.ids(rows) == gold_ids_N[:, None]).any(dim=-1)
        found_NK = torch.cat([found_NK[:, :k], found_NK[:, k:].masked_fill(known_N[:, None], -torch.inf)], dim=-1)
        return torch.cat([found_NK, rest_N1 - normaliser_N1], dim=-1)

    def kl(self, student_NV: Tensor, rows: Tensor, gold_ids_N: Tensor, temperature: float, *, swap: bool) -> Tensor:
        """The KL of this file, [N], with the gold token swapped to the teacher's first where that is asked for."""
        ids_NK = self.ids(rows)
        teacher_NO = self.logprobs(rows, gold_ids_N, temperature)
        if swap:
            teacher_NO = _swapped(teacher_NO, _place_of(gold_ids_N, ids_NK))
        outcomes_NO = torch.cat([ids_NK, gold_ids_N[:, None]], dim=-1)
        student_NV = raised(student_NV) / temperature
        # Not −∞: where no token is left, its mass is 0 on both sides, and the logarithm of 0 has no gradient.
        rest_NV = student_NV.scatter(-1, outcomes_NO, torch.finfo(student_NV.dtype).min / 4)
        listed_NO = torch.cat([student_NV.gather(-1, outcomes_NO), rest_NV.logsumexp(-1, keepdim=True)], dim=-1)
        student_NO = listed_NO - student_NV.logsumexp(-1, keepdim=True)
        there = teacher_NO > -torch.inf
        gap_NO = teacher_NO.masked_fill(~there, 0.0) - student_NO
        return temperature**2 * (teacher_NO.exp() * gap_NO.masked_fill(~there, 0.0)).sum(-1)


def top_k_weighted_sum(
    objective: Objective,
    student: Side,
    teacher: tuple[Tensor, TopK],
    target_ids_N: Tensor,
    weights_N: Tensor,
    *,
    workspace_mib: float = LOGITS_WORKSPACE_MIB,
) -> tuple[Tensor, Tensor]:
    """As `weighted_sum`, from rows [N, width] of the teacher instead of its hidden states and head."""
    states_NH, head = student
    rows, kept = teacher
    work = _TopKWork(_OfTopK(objective, kept), head, None, target_ids_N, workspace_mib, rows)
    if not torch.is_grad_enabled():
        parts_NP = work.parts(states_NH)
        return (weights_N * total(objective, parts_NP)).sum(), parts_NP
    return _WeightedSum.apply(states_NH, head.weight, head.bias, weights_N, work)


@dataclass(frozen=True)
class _OfTopK:
    """An objective whose teacher is given in rows."""

    objective: Objective
    kept: TopK
    needs_teacher: bool = True
    form: None = None

    @property
    def coefficients(self) -> Mapping[str, float]:
        """Those of the objective."""
        return self.objective.coefficients

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """Parts as the objective has them; `teacher_NV` are rows."""
        assert teacher_NV is not None
        objective, rows, swap = self.objective, teacher_NV, getattr(self.objective, "swap", False)
        assert isinstance(objective, Distillation | PredictionNear | SelfDistillation), "refused before the run"
        divergence = self.kept.kl(student_NV, rows, target_ids_N, objective.temperature, swap=swap)
        if isinstance(objective, Distillation):
            return divergence[:, None]
        prediction = cross_entropy(student_NV, target_ids_N)
        if isinstance(objective, PredictionNear):
            return torch.stack([prediction, divergence], dim=-1)
        ids_NK, logprobs_NO = self.kept.ids(rows), self.kept.logprobs(rows, target_ids_N)
        gold = logprobs_NO.gather(-1, _place_of(target_ids_N, ids_NK)).exp().squeeze(-1)
        first = (ids_NK[:, 0] == target_ids_N).to(prediction.dtype)
        return torch.stack([prediction, divergence, first, gold], dim=-1)


@dataclass(frozen=True, eq=False)
class _TopKWork(_Work):
    """Chunks whose gradient autograd takes on the student's logits, beside the teacher's rows."""

    of_teacher: Tensor

    def chunk(self, states_NH: Tensor, rows: slice, *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Parts of some rows, [n, P], and the gradient of their losses on h Wᵀ + b, [n, V]."""
        student_NV = self.head.logits(states_NH[rows])
        parts_NP, on_logits = self._dense(student_NV, self.of_teacher[rows], self.target_ids[rows], gradient)
        return parts_NP, None if on_logits is None else self.head.before_cap(on_logits, student_NV.detach())


def _place_of(gold_ids_N: Tensor, ids_NK: Tensor) -> Tensor:
    """[N, 1]: where the gold token is among the k; k, its own place, where it is not."""
    same = ids_NK == gold_ids_N[:, None]
    beside = torch.full_like(gold_ids_N[:, None], ids_NK.shape[-1])
    return torch.where(same.any(-1, keepdim=True), same.int().argmax(-1, keepdim=True), beside)


def _swapped(logprobs_NO: Tensor, place_N1: Tensor) -> Tensor:
    first = logprobs_NO[:, :1]
    at_gold = logprobs_NO.gather(-1, place_N1)
    return (
        logprobs_NO.scatter(-1, place_N1, first)
        .scatter(-1, torch.zeros_like(place_N1), at_gold)
        .where(place_N1 != 0, logprobs_NO)
    )
