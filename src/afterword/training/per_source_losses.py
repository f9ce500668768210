"""What every source's tokens cost in a step: the parts of its losses, averaged over its trained positions."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from afterword.errors import ConfigError
from afterword.methods import Term
from afterword.types import Batch

MOST_SOURCES = 64
"""So many sources of the documents have a line of their own in a row of metrics; the others share one."""
OTHERS = "(other documents)"
"""The name of that line."""
_TAKEN = "a source of the documents has this name, and losses are logged by name. Give the mixture's another name."


def refuse_taken_names(documents: Sequence[str], general: Sequence[str]) -> None:
    """ConfigError where losses of general text would go by the name of one of the documents' sources."""
    taken = {*documents, OTHERS}
    if problems := [f"mixture.{name}: {_TAKEN}" for name in general if name in taken]:
        raise ConfigError(problems)


def warn_of_shared_line(documents: Sequence[str]) -> None:
    """Says it where not every source of the documents has a line of its own."""
    if len(documents) > MOST_SOURCES:
        shared = f"the first {MOST_SOURCES} have losses of their own in metrics.jsonl, the others share {OTHERS!r}"
        warnings.warn(f"The documents have {len(documents):,} sources: {shared}.", stacklevel=3)


@dataclass
class SourceSums:
    """Sums over positions since they were last taken. Positions of any weight count alike."""

    documents: tuple[str, ...]
    """Names of the documents' sources, which batches number first."""
    general: tuple[str, ...]
    """Names of the sources of general text, which batches number after them."""
    terms: Sequence[Term]
    sums: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    """By term: [lines, parts + 1] float64, the last column a count."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Names that are told apart."""
        more = (OTHERS,) if len(self.documents) > MOST_SOURCES else ()
        return (*self.documents[:MOST_SOURCES], *more, *self.general)

    def add(self, batch: Batch, parts_NP: Tensor) -> None:
        """Add the parts of a micro-batch's losses, without their gradient."""
        # Examples without weight only keep a process in step with the others, and train nothing.
        there = (batch.weights > 0).to(parts_NP.dtype)[:, None]
        counted = torch.cat([parts_NP.detach() * there, there], dim=-1)
        empty = torch.zeros(len(self.lines), counted.shape[1], dtype=counted.dtype, device=counted.device)
        self.sums[batch.term] = self.sums.get(batch.term, empty).index_add(0, self._line(batch.sources), counted)

    def _line(self, sources_N: Tensor) -> Tensor:
        """The line of every source: its own, or for the documents' beyond the limit the one after the last of these."""
        beyond = max(0, len(self.documents) - MOST_SOURCES - 1)
        general = sources_N >= len(self.documents)
        return torch.where(general, sources_N - beyond, sources_N.clamp(max=MOST_SOURCES))

    def take(self, over_processes: Callable[[Tensor], Tensor], prefix: str = "source") -> dict[str, float]:
        """`prefix/SOURCE/PART` means and `prefix/SOURCE/positions`, over all processes; then everything is 0 again."""
        taken = {name: value for term in range(len(self.terms)) for name, value in self._of(term, over_processes)}
        self.sums.clear()
        return {f"{prefix}/{name}": value for name, value in taken.items()}

    def _of(self, term: int, over_processes: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, float]]:
        names = tuple(self.terms[term].objective.coefficients)
        # A process that read nothing of a term takes part in the sum all the same.
        empty = torch.zeros(len(self.lines), len(names) + 1)
        rows = (
            over_processes(self.sums.get(term, empty).flatten().double())
            .view(len(self.lines), -1)
            .cpu()
            .numpy()
            .tolist()
        )
        # Another term's parts of the same source may have the same names.
        replayed = "replay_" if term else ""
        for source, (*values, count) in zip(self.lines, rows, strict=True):
            if count:
                yield f"{source}/{replayed}positions", count
                yield from ((f"{source}/{replayed}{n}", v / count) for n, v in zip(names, values, strict=True))
