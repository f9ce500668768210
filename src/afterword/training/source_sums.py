"""What every source's tokens cost in a step: the parts of its losses, averaged over its trained positions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from afterword.methods import Term
from afterword.types import Batch

MOST_SOURCES = 64
"""With more sources than these a row of metrics has no line for each."""


@dataclass
class SourceSums:
    """Sums over positions since they were last taken. Positions of any weight count alike."""

    sources: tuple[str, ...]
    terms: Sequence[Term]
    sums: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    """By term: [sources, parts + 1] float64, the last column a count."""

    def add(self, batch: Batch, parts_NP: Tensor) -> None:
        """Add the parts of a micro-batch's losses, without their gradient."""
        if len(self.sources) > MOST_SOURCES:
            return
        # Examples without weight only keep a process in step with the others, and train nothing.
        there = (batch.weights > 0).to(parts_NP.dtype)[:, None]
        counted = torch.cat([parts_NP.detach() * there, there], dim=-1)
        empty = torch.zeros(len(self.sources), counted.shape[1], dtype=counted.dtype, device=counted.device)
        self.sums[batch.term] = self.sums.get(batch.term, empty).index_add(0, batch.sources, counted)

    def take(self, over_processes: Callable[[Tensor], Tensor], prefix: str = "source") -> dict[str, float]:
        """`prefix/SOURCE/PART` means and `prefix/SOURCE/positions`, over all processes; then everything is 0 again."""
        taken = {name: value for term in range(len(self.terms)) for name, value in self._of(term, over_processes)}
        self.sums.clear()
        return {f"{prefix}/{name}": value for name, value in taken.items()}

    def _of(self, term: int, over_processes: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, float]]:
        names = tuple(self.terms[term].objective.coefficients)
        # A process that read nothing of a term takes part in the sum all the same.
        empty = torch.zeros(len(self.sources), len(names) + 1)
        if len(self.sources) > MOST_SOURCES:
            return
        rows = over_processes(self.sums.get(term, empty).flatten().double()).view(len(self.sources), -1).tolist()
        # Another term's parts of the same source may have the same names.
        replayed = "replay_" if term else ""
        for source, (*values, count) in zip(self.sources, rows, strict=True):
            if count:
                yield f"{source}/{replayed}positions", count
                yield from ((f"{source}/{replayed}{n}", v / count) for n, v in zip(names, values, strict=True))
