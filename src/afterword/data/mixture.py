"""General text beside the documents: how much of each source a run reads, and when.

The one rule: shares are kept as the run goes, not drawn. A source is read in passes, each in an order of its own, and
an epoch takes up where the last one stopped; so what was asked for is met to within one sample at every moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterword.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SourceShare:
    """How much of a source an epoch reads. Neither share: all of it, once."""

    tokens: float | None = None
    """Share of all tokens."""
    samples: float | None = None
    """Share of all samples (windows)."""
    max_epochs: float = 4.0
    """Most passes over the source in the whole run; after them it gives no more."""


@dataclass(frozen=True, eq=False)
class SourceStream:
    """The samples of one source, pass after pass."""

    lengths: np.ndarray  # [samples] tokens as they are read, BOS and EOS included
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

    def runs_out(self, epochs: int) -> bool:
        """Whether so many epochs take more than there is in `max_epochs` passes."""
        return epochs * self.per_epoch > self.max_epochs * self._whole

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

    @property
    def _whole(self) -> float:
        """Of a pass, what `per_epoch` is of an epoch."""
        return float(self.lengths.sum()) if self.by_tokens else float(len(self.lengths))

    def _border(self, amount: float) -> int:
        """How many samples come before an amount, counted over all passes, rounded to the nearest sample."""
        passes, rest = divmod(min(amount, self.max_epochs * self._whole), self._whole)
        if not self.by_tokens:
            return int(passes) * len(self.lengths) + round(rest)
        middles = self.lengths[self._pass(int(passes))]
        middles = middles.cumsum() - middles / 2
        return int(passes) * len(self.lengths) + int(np.searchsorted(middles, rest))


def streams(
    documents: np.ndarray, sources: Sequence[tuple[np.ndarray, SourceShare]], seed: int
) -> tuple[SourceStream, ...]:
    """A stream for every source beside documents of these lengths, with what an epoch takes of it.

    An epoch reads the documents once. Every share is of everything that is read. Shares that cannot be met together
    are a ConfigError.
    """
    tokens, samples = _totals(documents, sources)
    firsts = np.cumsum([len(documents), *(len(lengths) for lengths, _ in sources)])
    made = list[SourceStream]()
    for first, (lengths, share) in zip(firsts[:-1].tolist(), sources, strict=True):
        shared = share.tokens is not None or share.samples is not None
        amount = (share.tokens or 0) * tokens + (share.samples or 0) * samples if shared else len(lengths)
        limit = share.max_epochs if shared else np.inf
        made.append(SourceStream(lengths, first, float(amount), share.tokens is not None, limit, seed))
    return tuple(made)


def _totals(documents: np.ndarray, sources: Sequence[tuple[np.ndarray, SourceShare]]) -> tuple[float, float]:
    """All tokens T and all samples S that an epoch reads, once those that are read once are t and n.

    T = t + Σ_tokens share·T + Σ_samples share·S·m and S = n + Σ_samples share·S + Σ_tokens share·T / m, where m is the
    mean length of a source: two linear equations.
    """
    once = [documents, *(lengths for lengths, share in sources if share.tokens is None and share.samples is None)]
    by_tokens = [(share.tokens, lengths.mean()) for lengths, share in sources if share.tokens is not None]
    by_samples = [(share.samples, lengths.mean()) for lengths, share in sources if share.samples is not None]
    of_tokens, of_samples = (1 - sum(share for share, _ in shares) for shares in (by_tokens, by_samples))
    # Tokens that come with a sample of the whole, and samples that come with a token of it.
    with_samples = sum(share * mean for share, mean in by_samples)
    with_tokens = sum(share / mean for share, mean in by_tokens)
    for unit, rest in (("tokens", of_tokens), ("samples", of_samples)):
        if rest <= 0:
            problem = f"the shares of {unit} sum to {1 - rest:g}, and the documents need some"
            raise ConfigError(f"mixture: {problem}. Lower them.")
    # The solution is positive only where the determinant is.
    if of_tokens * of_samples <= with_samples * with_tokens * (1 + 1e-9):
        both = f"shares of {1 - of_tokens:.3g} of tokens and {1 - of_samples:.3g} of samples"
        problem = f"{both} cannot both be met: the more is read for one, the more the other asks for"
        raise ConfigError(f"mixture: {problem}. Lower them.")
    read_once = [sum(map(np.sum, once)), sum(map(len, once))]
    tokens, samples = np.linalg.solve([[of_tokens, -with_samples], [-with_tokens, of_samples]], read_once)
    return float(tokens), float(samples)


def interleaved(groups: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Several sequences as one in which each is spread evenly, and the place of every element in [0, 1).

    An element's place is the middle of its share of the weights of its own sequence.
    """
    places = [(weight.cumsum() - weight / 2) / weight.sum() for weight in weights if len(weight)]
    place = np.concatenate(places)
    order = np.argsort(place, kind="stable")
    return np.concatenate([group for group in groups if len(group)])[order], place[order]
