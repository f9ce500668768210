"""General text beside the documents: how much of each source a run reads, and when.

The one rule: shares are kept as the run goes, not drawn. A source is read in passes, each in an order of its own, and
an epoch takes up where the last one stopped; so what was asked for is met to within one sample at every moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of a source an epoch reads. Neither share: all of it, once."""

    tokens: float | None = None
    """Share of all tokens."""
    samples: float | None = None
    """Share of all samples (windows)."""
    max_epochs: float = 4.0
    """Most passes over the source in the whole run; after them it gives no more."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The samples of one source, pass after pass."""

    lengths: np.ndarray  # [samples] tokens
    first: int
    """Index of its first sample among all windows of the run."""
    per_epoch: float
    """What an epoch takes: samples, or tokens where `by_tokens`."""
    by_tokens: bool
    max_epochs: float
    seed: int

    @property
    def tokens_per_epoch(self) -> float:
        """Tokens that an epoch takes, on average, while there are passes left."""
        return self.per_epoch if self.by_tokens else self.per_epoch * float(self.lengths.mean())

    def samples(self, epoch: int) -> np.ndarray:
        """Indices of the samples that an epoch reads, in their order."""
        begin, end = (self._border(number * self.per_epoch) for number in (epoch, epoch + 1))
        count = len(self.lengths)
        passes = range(begin // count, -(-end // count))
        order = np.concatenate([self._pass(number) for number in passes]) if passes else np.zeros(0, np.int64)
        start = begin // count * count
        return self.first + order[begin - start : end - start]

    def _pass(self, number: int) -> np.ndarray:
        return np.random.default_rng((self.seed, self.first, number)).permutation(len(self.lengths))

    def _border(self, amount: float) -> int:
        """How many samples come before an amount, counted over all passes, rounded to the nearest sample."""
        whole = float(self.lengths.sum()) if self.by_tokens else float(len(self.lengths))
        passes, rest = divmod(min(amount, self.max_epochs * whole), whole)
        if not self.by_tokens:
            return int(passes) * len(self.lengths) + round(rest)
        middles = self.lengths[self._pass(int(passes))]
        middles = middles.cumsum() - middles / 2
        return int(passes) * len(self.lengths) + int(np.searchsorted(middles, rest))


def streams(documents: np.ndarray, sources: Sequence[tuple[np.ndarray, Share]], seed: int) -> tuple[Stream, ...]:
    """A stream for every source beside documents of these lengths, with what an epoch takes of it.

    An epoch reads the documents once. Shares of samples are of what is read once and of each other; shares of tokens
    are of everything.
    """
    once = [lengths for lengths, share in sources if share.tokens is None and share.samples is None]
    fixed = [documents, *once]
    samples = sum(map(len, fixed)) / (1 - sum(share.samples or 0 for _, share in sources))
    by_samples = sum((share.samples or 0) * samples * lengths.mean() for lengths, share in sources)
    tokens = sum(map(np.sum, fixed)) + by_samples
    tokens /= 1 - sum(share.tokens or 0 for _, share in sources)
    firsts = np.cumsum([len(documents), *(len(lengths) for lengths, _ in sources)])
    made = []
    for first, (lengths, share) in zip(firsts[:-1].tolist(), sources, strict=True):
        shared = share.tokens is not None or share.samples is not None
        amount = (share.tokens or 0) * tokens + (share.samples or 0) * samples if shared else len(lengths)
        limit = share.max_epochs if shared else np.inf
        made.append(Stream(lengths, first, float(amount), share.tokens is not None, limit, seed))
    return tuple(made)


def interleaved(groups: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Several sequences as one in which each is spread evenly, and the place of every element in [0, 1).

    An element's place is the middle of its share of the weights of its own sequence.
    """
    places = [(weight.cumsum() - weight / 2) / weight.sum() for weight in weights if len(weight)]
    place = np.concatenate(places)
    order = np.argsort(place, kind="stable")
    return np.concatenate([group for group in groups if len(group)])[order], place[order]
