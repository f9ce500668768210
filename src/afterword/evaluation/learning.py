"""Label-free learning: how well the adapted model predicts sentences alone that it has read about (METHODS §5).

    a  mean NLL of the targets under the adapted model θ, without context
    b  the same under the reference M0
    c  the same under M0 with the document before them

and KL(M0 with context ‖ model without), which plain domain adaptation does not lower for free. The same
targets for every method, whatever it was trained on: five sentences a window, drawn by the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword.batching import Packing, micro_batches, to_device
from afterword.evaluation.statistics import bootstrap_statistic, estimate, paired_change
from afterword.models import head_of, trained_states
from afterword.objectives import Distillation, Objective, Prediction, forward_kl, hidden_losses
from afterword.types import Batch, Example, Score, View, Window
from afterword.views import SpecialTokens, SplitContext

VERSION = 1
VIEW = SplitContext(strategy="sentence", targets=5, averaging="token")
MIN_CONTEXT_GAIN_NATS = 0.2
"""Below it (b − a) / (b − c) means nothing: on a tiny story model it reached 500 % (METHODS §5)."""
_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True)
class TargetLosses:
    """Mean nats per target token, a value for every document. Those of θ are None where only M0 is measured."""

    alone: np.ndarray  # b [documents]
    with_context: np.ndarray  # c
    kl_from_context: np.ndarray  # KL(M0 with context ‖ M0 alone)
    adapted_alone: np.ndarray | None  # a
    adapted_kl_from_context: np.ndarray | None  # KL(M0 with context ‖ θ alone)


@torch.no_grad()
def target_losses(
    reference: Any,
    adapted: Any | None,
    windows: Sequence[Window],
    special: SpecialTokens,
    packing: Packing,
    *,
    seed: int = 0,
) -> TargetLosses:
    """Measure the targets of `windows`, averaged within each document."""
    names = list(dict.fromkeys(window.document for window in windows))
    sums = np.zeros((5, len(names)))
    counts = np.zeros(len(names))
    for batch in _batches(windows, names, special, packing, seed):
        batch = to_device(batch, reference.device)
        documents = batch.sources.cpu().numpy()
        for row, losses in enumerate(_five_losses(reference, adapted, batch)):
            np.add.at(sums[row], documents, losses.double().cpu().numpy())
        np.add.at(counts, documents, 1)
    b, c, kl, a, kl_adapted = sums / counts
    return TargetLosses(b, c, kl, a if adapted else None, kl_adapted if adapted else None)


def learning_scores(losses: TargetLosses, task: str, *, seed: int = 0) -> list[Score]:
    """a, b, c and the KL as scores. The share of the context's gain only where that gain is real."""
    b, c, a = losses.alone, losses.with_context, losses.adapted_alone
    common = {"task": task, "version": VERSION, "n": len(b), "details": {"targets": 5, "seed": seed}}
    scores = [
        _before_after("target_nll_nats", b, a, common),
        Score(metric="target_nll_with_context_nats", before=estimate(c), better=None, **common),
        _before_after("kl_from_context_nats", losses.kl_from_context, losses.adapted_kl_from_context, common),
    ]
    if a is None:
        return scores
    assert losses.adapted_kl_from_context is not None
    relative = bootstrap_statistic(_ratio, losses.adapted_kl_from_context, losses.kl_from_context)
    scores.append(Score(metric="kl_from_context_relative_frac", after=relative, better="lower", **common))
    gain = paired_change(c, b)
    if gain.value >= MIN_CONTEXT_GAIN_NATS and gain.interval_95 and gain.interval_95[0] > 0:
        share = bootstrap_statistic(_share, a, b, c)
        scores.append(Score(metric="share_of_context_gain_frac", after=share, better="higher", **common))
    return scores


def _before_after(metric: str, before: np.ndarray, after: np.ndarray | None, common: dict[str, Any]) -> Score:
    return Score(
        metric=metric,
        before=estimate(before),
        after=None if after is None else estimate(after),
        change=None if after is None else paired_change(before, after),
        better="lower",
        **common,
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator.sum(-1) / denominator.sum(-1)


def _share(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (b - a).sum(-1) / (b - c).sum(-1)


def _batches(
    windows: Sequence[Window], names: list[str], special: SpecialTokens, packing: Packing, seed: int
) -> Iterator[Batch]:
    ordinal = {name: i for i, name in enumerate(names)}

    def example(window: Window) -> Example:
        rng = np.random.default_rng((seed, window.index))
        # Sources are the documents here: losses are summed by them.
        return replace(VIEW.build(window, special, rng), source=ordinal[window.document])

    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        yield from micro_batches([example(w) for w in windows[start : start + _WINDOWS_AT_ONCE]], packing)


def _five_losses(reference: Any, adapted: Any | None, batch: Batch) -> list[Tensor]:
    """b, c, KL of M0, a, KL of θ: [N] each; the last two only with an adapted model."""
    assert batch.teacher is not None
    kl = Distillation(forward_kl)
    with_context = _states(reference, batch.teacher)
    alone = _states(reference, batch.student)
    losses = [
        hidden_losses(Prediction(), alone, None, batch.target_ids),
        hidden_losses(Prediction(), with_context, None, batch.target_ids),
        hidden_losses(kl, alone, with_context, batch.target_ids),
    ]
    if adapted is not None:
        moved = _states(adapted, batch.student)
        pairs: list[tuple[Objective, Any]] = [(Prediction(), None), (kl, with_context)]
        losses += [hidden_losses(objective, moved, teacher, batch.target_ids) for objective, teacher in pairs]
    return losses


def _states(model: Any, view: View) -> tuple[Tensor, Any]:
    return trained_states(model, view), head_of(model)
