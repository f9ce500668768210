"""Losses on held-out text while a run trains: of the documents and of general text, each by the terms that read it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword.data import Prepared, SpecialTokens, View, WindowSettings
from afterword.methods import Term
from afterword.objectives import Objective, Prediction
from afterword.training.per_source_losses import SourceSums, refuse_taken_names
from afterword.training.sources import MixtureSource, Source, as_windows, mixture_sources
from afterword.training.steps import ExampleKey
from afterword.types import Batch

MOST_WINDOWS = 128
"""Of one source, read by an evaluation during training at most. `afterword evaluate` is the real measurement."""


@dataclass(frozen=True)
class HeldOut:
    """What is evaluated on: windows of the documents, if there are any, then of sources of general text."""

    sources: tuple[Source, ...]

    @property
    def documents(self) -> tuple[str, ...]:
        """Names of the documents' sources."""
        return tuple(name for each in self.sources if each.source is None for name in each.names)

    @property
    def general(self) -> tuple[str, ...]:
        """Names of the sources of general text."""
        return tuple(each.name for each in self.sources if each.source is not None)

    def windows(self) -> np.ndarray:
        """Numbers, over all sources, of the windows that are read: of a large source MOST_WINDOWS at even distances."""
        return np.concatenate([own for _, own in self._evaluated()])

    def draws(self, terms: Sequence[Term]) -> Iterator[ExampleKey]:
        """Each of these windows, as epoch 0 draws from it, for every term that reads it."""
        for source, windows in self._evaluated():
            read = [number for number, term in enumerate(terms) if term.reads(source.source)]
            yield from (ExampleKey(window, 0, term) for window in windows.tolist() for term in read)

    def _evaluated(self) -> Iterator[tuple[Source, np.ndarray]]:
        first = 0
        for source in self.sources:
            count = len(source.windows)
            yield source, first + np.arange(0, count, -(-count // MOST_WINDOWS))
            first += count


def held_out_documents(windows: Prepared, special: SpecialTokens) -> HeldOut:
    """Documents alone."""
    return HeldOut((Source("held-out documents", windows, special),))


def held_out_of(
    documents: Any,
    mixture: Mapping[str, MixtureSource],
    work: Path,
    special: SpecialTokens,
    view: View,
    tokenizer: Any,
    window_settings: WindowSettings,
) -> HeldOut | None:
    """Documents, if any, and what is held out of the mixture's sources; None where there is neither."""
    own: tuple[Source, ...] = ()
    if documents is not None:
        windows = as_windows(documents, work / "eval", view, tokenizer, window_settings)
        own = held_out_documents(windows, special).sources
    found = HeldOut((*own, *mixture_sources(mixture, work, view, tokenizer, window_settings, held_out=True)))
    refuse_taken_names(found.documents, found.general)
    return found if found.sources else None


def held_out_losses(
    batches: Iterable[Batch],
    held_out: HeldOut,
    terms: Sequence[Term],
    weighted_sum: Callable[[Batch, Objective], tuple[Tensor, Tensor]],
    over_processes: Callable[[Tensor], Tensor],
    prefix: str,
) -> dict[str, float]:
    """`prefix_loss`: what a step's loss would be; `prefix_nll_nats`: plain prediction of the documents' targets.

    The loss is the terms' sum with their factors, each divided by its own count; a term without held-out text is left
    out. With the parts of every source's losses, as a step's row has them. Every batch is of one window.
    """
    by_source = SourceSums(held_out.documents, held_out.general, terms)
    sums = torch.zeros(len(terms) + 1, 2, dtype=torch.float64)
    for batch in batches:
        weighted, parts = weighted_sum(batch, terms[batch.term].objective)
        sums[batch.term] += torch.tensor([float(weighted), batch.total_weight], dtype=torch.float64)
        by_source.add(batch, parts)
        if batch.term == 0:
            # Sharded models read together, so general text is read here too, and then not counted.
            weighted, _ = weighted_sum(batch, Prediction())
            if bool((batch.sources < len(held_out.documents)).any()):
                sums[-1] += torch.tensor([float(weighted), batch.total_weight], dtype=torch.float64)
    *of_terms, documents = over_processes(sums.flatten()).view(-1, 2).cpu().numpy().tolist()
    pairs = zip(terms, of_terms, strict=True)
    values = {"loss": sum(term.weight * loss / weight for term, (loss, weight) in pairs if weight)}
    if documents[1]:
        values["nll_nats"] = documents[0] / documents[1]
    named = {f"{prefix}_{name}": value for name, value in values.items()}
    return named | by_source.take(over_processes, f"{prefix}_source")
