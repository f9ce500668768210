"""Losses of dense logits with their gradient on the student's logits, written out, in the memory of the logits.

Notation: p the teacher's distribution at the temperature, s the student's, δ the gap of their logits. With
d = δ − Σ p δ, e = expm1(d) and K = Σ p (e − d),

    log s − log p = d − log1p(K)        s − p = p (e − K) / (1 + K)        KL(p ‖ s) = log1p(K)

so that no loss and no gradient is the difference of two numbers that are nearly equal where student and teacher are:
at 5e-4 nats a difference of two normalisers in float32 is off by 0.4 %. The dense functions define what is computed;
these agree with them, and with autograd through them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Part = Literal["prediction", "weighted_prediction", "divergence", "teacher_first", "teacher_gold", "teacher_prediction"]

_CACHED_VALUES = 2**18
"""Of one float32 tensor that are worked on at a time by a CPU's thread: 1 MiB, of which three fit its own cache."""
FAR = 60.0
"""Gap in nats from which on the student may have mass where the teacher's is no float32 above 0."""


@dataclass(frozen=True)
class Form:
    """A loss as prediction · w · CE + divergence · D, with what is reported beside it."""

    reported: tuple[Part, ...]
    prediction: float = 0.0
    """Factor of the cross-entropy."""
    divergence: Literal["forward", "reverse", "jsd"] | None = None
    factor: float = 0.0
    """Of the divergence, which carries its τ²."""
    temperature: float = 1.0
    swap: bool = False
    """The teacher's largest logit and the gold token's exchanged."""
    token_weights: Callable[[Tensor], Tensor] | None = None
    """w of every position from its cross-entropy; no gradient goes through it."""

    @property
    def reads_prediction(self) -> bool:
        """Whether the cross-entropy is asked for at all."""
        return bool(self.prediction) or "prediction" in self.reported

    @property
    def tensors(self) -> int:
        """The most [N, V] tensors that `evaluate` has at a time, those that it is given among them."""
        beside = self.temperature != 1.0 and self.reads_prediction
        return {None: 1, "forward": 3, "reverse": 4, "jsd": 5}[self.divergence] + beside


@dataclass(slots=True)
class Found:
    """Of some rows: parts by name, [N] each; and the gradient of the loss on the student's logits, [N, V]."""

    parts: dict[Part, Tensor]
    gradient: Tensor | None
    far: Tensor | None = None
    """Rows of which nothing of this holds: student and teacher are too far apart (FAR). None: none of them."""


def evaluate(
    form: Form, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor, *, gradient: bool
) -> Found:
    """What a form comes to. Overwrites both logits.

    On a CPU few rows are taken at a time: what one operation leaves of them is in the cache when the next one reads.
    """
    few = max(1, int(_CACHED_VALUES * torch.get_num_threads() / student_NV.shape[-1]))
    if student_NV.is_cuda or len(student_NV) <= few:
        return _of_rows(form, student_NV, teacher_NV, target_ids_N, gradient)
    found: list[Found] = []
    for start in range(0, len(student_NV), few):
        rows = slice(start, start + few)
        teacher = None if teacher_NV is None else teacher_NV[rows]
        found.append(_of_rows(form, student_NV[rows], teacher, target_ids_N[rows], gradient))
        if (on_logits := found[-1].gradient) is not None:
            found[-1].gradient = student_NV[rows].copy_(on_logits)
    parts: dict[Part, Tensor] = {name: torch.cat([each.parts[name] for each in found]) for name in found[0].parts}
    return Found(parts, student_NV if gradient else None, _far_of(found))


def _far_of(found: list[Found]) -> Tensor | None:
    if all(each.far is None for each in found):
        return None
    lengths = (len(next(iter(each.parts.values()))) for each in found)
    # In the order of the rows; a block without such rows has no mask.
    masks = zip(found, lengths, strict=True)
    return torch.cat([torch.zeros(n, dtype=torch.bool) if each.far is None else each.far for each, n in masks])


def _of_rows(form: Form, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor, gradient: bool) -> Found:
    if form.divergence is None:
        return _prediction(form, student_NV, target_ids_N, gradient)
    assert teacher_NV is not None, "a divergence reads a teacher"
    if form.temperature == 1.0 or not form.reads_prediction:
        return _divergence(form, student_NV, teacher_NV, target_ids_N, gradient)
    # The prediction is at temperature 1: its softmax is another one.
    parts: dict[Part, Tensor] = {}
    if "teacher_gold" in form.reported:
        parts["teacher_gold"] = (_at(teacher_NV, target_ids_N) - teacher_NV.logsumexp(-1)).exp()
    alone = replace(form, divergence=None)
    predicted = _prediction(alone, student_NV.clone(), target_ids_N, gradient and form.prediction > 0)
    found = _divergence(replace(form, prediction=0.0), student_NV, teacher_NV, target_ids_N, gradient)
    if found.gradient is not None and predicted.gradient is not None:
        found.gradient += predicted.gradient
    return replace(found, parts={**found.parts, **predicted.parts, **parts})


def _prediction(form: Form, student_NV: Tensor, target_ids_N: Tensor, gradient: bool) -> Found:
    """−log s_y, and s − δ_y."""
    s_NV, log_gold_N = _softmax(student_NV, target_ids_N)
    nll_N = -log_gold_N
    parts: dict[Part, Tensor] = {"prediction": nll_N}
    factor: float | Tensor = form.prediction
    if form.token_weights is not None:
        weights_N = form.token_weights(nll_N)
        parts["weighted_prediction"] = weights_N * nll_N
        factor = (form.prediction * weights_N)[:, None]
    if not gradient:
        return Found(parts, None)
    _add_at(s_NV, target_ids_N, -1.0)
    return Found(parts, s_NV.mul_(factor) if isinstance(factor, Tensor) or factor != 1.0 else s_NV)


@dataclass(slots=True)
class _Ratio:
    """Student over teacher, both at the temperature."""

    p: Tensor  # [N, V]
    d: Tensor  # [N, V]
    e: Tensor  # [N, V]
    k: Tensor  # [N, 1]
    first: Tensor
    """The teacher's first token, i."""
    gold: Tensor
    """The gold token, y."""
    student_gap: Tensor
    """log s_i − log s_y."""
    teacher_gap: Tensor
    """log p_i − log p_y."""

    def student(self) -> Tensor:
        """s [N, V], in the memory of p; p and e are no longer there."""
        return self.p.mul_(self.e.add_(1.0)).div_(1.0 + self.k)


def _divergence(form: Form, student_NV: Tensor, teacher_NV: Tensor, target_ids_N: Tensor, gradient: bool) -> Found:
    if form.temperature != 1.0:
        student_NV, teacher_NV = student_NV.div_(form.temperature), teacher_NV.div_(form.temperature)
    first_N = teacher_NV.max(-1).indices if form.swap or "teacher_first" in form.reported else target_ids_N
    gaps = [_at(logits, first_N) - _at(logits, target_ids_N) for logits in (student_NV, teacher_NV)]
    d_NV = student_NV.sub_(teacher_NV)
    p_NV, log_gold_N = _softmax(teacher_NV, target_ids_N)
    scratch_NV = torch.mul(p_NV, d_NV)
    d_NV -= scratch_NV.sum(-1, keepdim=True)
    far_N = d_NV.amax(-1) > FAR
    e_NV = torch.expm1(d_NV, out=scratch_NV)
    gold_d_N = _at(d_NV, target_ids_N)
    k_N1 = _k(p_NV, d_NV, e_NV, keep_d=form.divergence != "forward")
    parts: dict[Part, Tensor] = {
        "prediction": k_N1.log1p().squeeze(-1) - gold_d_N - log_gold_N,
        "teacher_first": (first_N == target_ids_N).to(log_gold_N.dtype),
        "teacher_gold": log_gold_N.exp(),
        "teacher_prediction": -log_gold_N,
    }
    ratio = _Ratio(p_NV, d_NV, e_NV, k_N1, first_N, target_ids_N, *gaps)
    value_N, on_logits = {"forward": _forward, "reverse": _reverse, "jsd": _jsd}[form.divergence or ""](
        ratio, form.swap, form.prediction, form.factor * form.temperature, gradient
    )
    parts["divergence"] = form.temperature**2 * value_N
    return Found(parts, on_logits, far_N if bool(far_N.any()) else None)


def _k(p_NV: Tensor, d_NV: Tensor, e_NV: Tensor, *, keep_d: bool) -> Tensor:
    """K, [N, 1]. The forward KL has no use for d after it."""
    difference_NV = d_NV - e_NV if keep_d else d_NV.sub_(e_NV)
    return difference_NV.mul_(p_NV).sum(-1, keepdim=True).neg_()


def _forward(r: _Ratio, swap: bool, a: float, b: float, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(p ‖ s), or with the swap of the teacher's KL(q ‖ s); and a (s − δ_y) + b (s − q)."""
    value_N = r.k.log1p().squeeze(-1)
    moved_N = _at(r.p, r.first) - _at(r.p, r.gold) if swap else torch.zeros_like(value_N)
    value_N = value_N + moved_N * r.student_gap
    if not gradient:
        return value_N, None
    on_logits = r.e.mul_((a + b) / (1.0 + r.k)).add_((a - b * r.k) / (1.0 + r.k)).mul_(r.p)
    _add_at(on_logits, r.first, b * moved_N)
    _add_at(on_logits, r.gold, -a - b * moved_N)
    return value_N, on_logits


def _reverse(r: _Ratio, swap: bool, a: float, b: float, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(s ‖ p), or KL(s ‖ q); and a (s − δ_y) + b s (log s − log q − KL)."""
    log_ratio, s_NV = r.d.sub_(r.k.log1p()), r.student()
    value_N = torch.mul(s_NV, log_ratio, out=r.e).sum(-1)
    s_first_N, s_gold_N = _at(s_NV, r.first), _at(s_NV, r.gold)
    gap_N = r.teacher_gap if swap else torch.zeros_like(value_N)
    value_N = value_N + gap_N * (s_first_N - s_gold_N)
    if not gradient:
        return value_N, None
    on_logits = log_ratio.sub_(value_N[:, None]).mul_(b).add_(a).mul_(s_NV)
    _add_at(on_logits, r.first, b * gap_N * s_first_N)
    _add_at(on_logits, r.gold, -a - b * gap_N * s_gold_N)
    return value_N, on_logits


def _jsd(r: _Ratio, swap: bool, a: float, b: float, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """½ KL(p ‖ m) + ½ KL(s ‖ m), m = (p + s) / 2; and a (s − δ_y) + ½ b s (log s − log m − KL(s ‖ m))."""
    assert not swap, "the swap is of a Kullback–Leibler divergence"
    # log m − log p = log1p(u / 2), where s = p (1 + u).
    middle = (r.e - r.k).div_(2.0 * (1.0 + r.k)).log1p_()
    teacher_N = torch.mul(r.p, middle).sum(-1).neg_()
    log_ratio = r.d.sub_(r.k.log1p()).sub_(middle)
    s_NV = r.student()
    student_N = torch.mul(s_NV, log_ratio, out=middle).sum(-1)
    value_N = 0.5 * (teacher_N + student_N)
    if not gradient:
        return value_N, None
    on_logits = log_ratio.sub_(student_N[:, None]).mul_(0.5 * b).add_(a).mul_(s_NV)
    _add_at(on_logits, r.gold, torch.full_like(value_N, -a))
    return value_N, on_logits


def _softmax(logits_NV: Tensor, target_ids_N: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities in the memory of the logits, and the logarithm of the gold token's, [N]."""
    logits_NV -= logits_NV.amax(-1, keepdim=True)
    gold_N = _at(logits_NV, target_ids_N)
    mass_N1 = logits_NV.exp_().sum(-1, keepdim=True)
    return logits_NV.div_(mass_N1), gold_N - mass_N1.log().squeeze(-1)


def _at(values_NV: Tensor, ids_N: Tensor) -> Tensor:
    return values_NV.gather(-1, ids_N[:, None]).squeeze(-1)


def _add_at(values_NV: Tensor, ids_N: Tensor, added: Tensor | float) -> None:
    added_N = added if isinstance(added, Tensor) else values_NV.new_full((len(ids_N),), added)
    values_NV.scatter_add_(-1, ids_N[:, None], added_N[:, None])
