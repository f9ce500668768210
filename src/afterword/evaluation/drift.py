"""What was lost: KL(M0 ‖ θ) per token and bits per byte, on text that neither was adapted to.

Drift in nats relates to forgetting (arXiv:2602.16093). Bits per byte compare across tokenizers: the sum of
nats over the sum of UTF-8 bytes, over ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from afterword.batching import Packing, micro_batches, to_device
from afterword.evaluation.statistics import paired_ratio_change, ratio_of_means
from afterword.models import head_of, trained_states
from afterword.objectives import Distillation, Prediction, forward_kl, hidden_losses
from afterword.types import Example, Score, Segment

VERSION = 1


@dataclass(frozen=True)
class Text:
    """One independent unit: a sample or a document, as token sequences that each fit the context."""

    sequences: tuple[tuple[np.ndarray, int], ...]
    """Token ids, and the offset of the first token that is scored (what comes before is context)."""
    utf8_bytes: int


@dataclass(frozen=True)
class TextLosses:
    """Sums in nats and token counts, a value for every text."""

    tokens: np.ndarray
    utf8_bytes: np.ndarray
    reference_nll: np.ndarray
    adapted_nll: np.ndarray | None
    kl: np.ndarray | None


@torch.no_grad()
def text_losses(reference: Any, adapted: Any | None, texts: Sequence[Text], packing: Packing) -> TextLosses:
    """Next-token losses of M0, of θ, and KL(M0 ‖ θ) over every scored token."""
    sums = np.zeros((4, len(texts)))
    for batch in micro_batches(_examples(texts), packing):
        batch = to_device(batch, reference.device)
        units = batch.sources.cpu().numpy()
        before = (trained_states(reference, batch.student), head_of(reference))
        losses = [torch.ones_like(batch.weights), hidden_losses(Prediction(), before, None, batch.target_ids)]
        if adapted is not None:
            after = (trained_states(adapted, batch.student), head_of(adapted))
            losses.append(hidden_losses(Prediction(), after, None, batch.target_ids))
            losses.append(hidden_losses(Distillation(forward_kl), after, before, batch.target_ids))
        for row, values in enumerate(losses):
            np.add.at(sums[row], units, values.double().cpu().numpy())
    tokens, reference_nll, adapted_nll, kl = sums
    utf8_bytes = np.array([text.utf8_bytes for text in texts], np.float64)
    measured = adapted is not None
    return TextLosses(tokens, utf8_bytes, reference_nll, adapted_nll if measured else None, kl if measured else None)


def drift_scores(losses: TextLosses, task: str, details: dict[str, Any]) -> list[Score]:
    """`kl_nats` per token (only with an adapted model) and `bits_per_byte`."""
    common = {"task": task, "version": VERSION, "n": len(losses.tokens), "details": details}
    before, utf8_bytes = losses.reference_nll / math.log(2), losses.utf8_bytes
    if losses.adapted_nll is None or losses.kl is None:
        reference = ratio_of_means(before, utf8_bytes)
        return [Score(metric="bits_per_byte", before=reference, better="lower", **common)]
    after = losses.adapted_nll / math.log(2)
    return [
        Score(metric="kl_nats", after=ratio_of_means(losses.kl, losses.tokens), better="lower", **common),
        Score(
            metric="bits_per_byte",
            before=ratio_of_means(before, utf8_bytes),
            after=ratio_of_means(after, utf8_bytes),
            change=paired_ratio_change(before, after, utf8_bytes),
            better="lower",
            **common,
        ),
    ]


def _examples(texts: Sequence[Text]) -> list[Example]:
    return [
        Example(str(i), i, None, (_segment(ids, first),))
        for i, text in enumerate(texts)
        for ids, first in text.sequences
    ]


def _segment(ids: np.ndarray, first: int) -> Segment:
    positions = np.arange(max(1, first) - 1, len(ids) - 1)
    weights = np.ones(len(positions), np.float32)
    return Segment(ids, positions, positions, ids[positions + 1], weights)
