"""Split contexts: the student reads a piece of the document alone, the teacher the document up to its end.

Padmanabhan et al. 2026, arXiv:2602.16093. All six split strategies of the paper's code, and two of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from afterword.types import Example, Window
from afterword.views.reading import Bos, Join, SpecialTokens
from afterword.views.segments import Averaging, Span, aligned_segments

Strategy = Literal[
    "sentence", "middle", "uniform_sentence", "random_token", "uniform_token", "random_token_suffix", "all", "anchor"
]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
MIN_TARGET_TOKENS = 2
"""A target needs a token to predict and one to predict it from."""
MIN_WINDOW_TOKENS = 4
"""Token strategies skip anything shorter."""


@dataclass(frozen=True)
class SplitContext:
    """The view of DiSC."""

    strategy: Strategy = "sentence"
    targets: int = 5
    """k, how many targets are drawn from a document. `middle` and `all` do not read it."""
    suffix_tokens: int | None = None
    """Length of a `random_token_suffix` target in tokens; None: to the end of the document."""
    join: Join = "document"
    bos: Bos = "auto"
    averaging: Averaging = "document"
    needs_eos: bool = False

    @property
    def anchored(self) -> bool:
        """Whether student segments begin with the title."""
        return self.strategy == "anchor"

    def skip_reason(self, window: Window) -> str | None:
        """Why this window can never give a target, or None. Such windows are counted, not trained."""
        by_sentence = self.strategy in _SENTENCE_DRAWS
        if by_sentence and len(window.sentence_starts) < 2:
            return "one_sentence"
        long_enough = by_sentence or len(window.token_ids) >= MIN_WINDOW_TOKENS
        return None if long_enough and self._possible(window) else "too_short"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """Draw this epoch's targets and align them. One teacher view serves them all."""
        spans = [span for span in self._drawn(window, rng) if span[1] - span[0] >= MIN_TARGET_TOKENS]
        # The paper's draw can hit short sentences only; then the last sentence that is long enough is the
        # target, so that no document passes through an optimizer step without effect. Ours.
        spans = spans or self._possible(window)[-1:]
        bos = np.array(special.bos_ids, np.int64)
        segments = aligned_segments(
            window.token_ids,
            spans,
            student_prefix=np.concatenate([bos, window.anchor_ids]) if self.anchored else bos,
            teacher_prefix=len(bos),
            averaging=self.averaging,
        )
        # Nothing after the last target is read by anyone.
        teacher_ids = np.concatenate([bos, window.token_ids[: max(end for _, end in spans)]])
        return Example(window.document, window.source, teacher_ids, segments)

    def _possible(self, window: Window) -> list[Span]:
        """Spans that are new and long enough: sentences, or for token strategies everything that is new."""
        spans = [(max(1, window.first_new_token), len(window.token_ids))]
        if self.strategy in _SENTENCE_DRAWS:
            spans = [window.sentence(i) for i in range(_first(window), len(window.sentence_starts))]
        return [span for span in spans if span[1] - span[0] >= MIN_TARGET_TOKENS]

    def _drawn(self, window: Window, rng: np.random.Generator) -> list[Span]:
        if draw := _SENTENCE_DRAWS.get(self.strategy):
            return [window.sentence(i) for i in draw(window, self.targets, rng)]
        starts, end = _TOKEN_DRAWS[self.strategy](window, self.targets, rng), len(window.token_ids)
        if self.strategy == "random_token_suffix":
            return [(start, min(start + (self.suffix_tokens or end), end)) for start in starts]
        return list(zip(starts, [*starts[1:], end], strict=True))


def _first(window: Window) -> int:
    """The first sentence that may be a target: new in this window, and never sentence 0."""
    return max(1, window.first_new_sentence)


def _draw_sentence(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    """The last sentence always, and k − 1 distinct ones from all; the last may be among those."""
    first, n = _first(window), len(window.sentence_starts)
    drawn = rng.choice(np.arange(first, n), size=min(k - 1, n - first), replace=False)
    return sorted({n - 1, *drawn.tolist()})


def _middle_sentence(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    new = window.first_new_sentence
    return [max(1, new + (len(window.sentence_starts) - new) // 2)]


def _uniform_sentences(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    # With nothing before it, first = 1 and this is the paper's max(1, round((n − 1) / k' · j)).
    first, n = _first(window), len(window.sentence_starts)
    k = min(k, n - first)
    return sorted({first - 1 + max(1, round((n - first) / k * j)) for j in range(1, k + 1)})


def _every_sentence(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    return list(range(_first(window), len(window.sentence_starts)))


def _random_tokens(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    """k' = min(k, N − 2) distinct positions from 1 … N − 2, among the tokens that are new."""
    candidates = np.arange(max(1, window.first_new_token), len(window.token_ids) - 1)
    return sorted(rng.choice(candidates, size=min(k, len(candidates)), replace=False).tolist())


def _uniform_tokens(window: Window, k: int, rng: np.random.Generator) -> list[int]:
    new = window.first_new_token
    count = len(window.token_ids) - new
    k = max(1, min(k, count - 2))
    return sorted({new + max(1, round(count / (k + 1) * j)) for j in range(1, k + 1)})


_Draw = Callable[[Window, int, np.random.Generator], list[int]]
_SENTENCE_DRAWS: dict[str, _Draw] = {
    "sentence": _draw_sentence,
    "middle": _middle_sentence,
    "uniform_sentence": _uniform_sentences,
    "all": _every_sentence,
    "anchor": _draw_sentence,
}
_TOKEN_DRAWS: dict[str, _Draw] = {
    "random_token": _random_tokens,
    "uniform_token": _uniform_tokens,
    "random_token_suffix": _random_tokens,
}
