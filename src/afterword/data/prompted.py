"""Passages → Example: each is trained behind what the student reads before it, and taught behind what the teacher does.

Rephrasings, continuations, answers, rollouts: whatever was written for a document is read here. What the teacher reads
before all passages of a document alike is read for all of them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterword.data.passages import NO_PASSAGES
from afterword.data.views import View, segment
from afterword.data.windows import SpecialTokens
from afterword.method_options import ChunkTokens, Passages, SkipTokens
from afterword.types import Example, PassageIds, Segment, Window


@dataclass(frozen=True, kw_only=True)
class Prompted(View):
    """The student reads `student_before` and a passage, the teacher `teacher_before` and the passage.

    Only the passage is trained, from its first token on where something, BOS included, stands before it on both sides.
    By `document` a document weighs 1: the mean over its passages of the mean over their positions. A document without
    passages, as one that is held out, is read whole by both.
    """

    passages: Passages | None = None
    """How many are drawn from a document in an epoch; None: all."""
    chunk_tokens: ChunkTokens | None = None
    """A passage's mean is then over chunks of so many tokens, a short last one weighing as much, of the mean over each:
    as in CD-base (Padmanabhan et al. 2023, arXiv:2306.09306). By `token` every position weighs 1 all the same."""
    skip_tokens: SkipTokens = 0
    """SDFT (arXiv:2601.19897) trains from the fourth token of a rollout on: 3."""

    @property
    def reads_passages(self) -> bool:
        """They are what it is for."""
        return True

    def skip_reason(self, window: Window) -> str | None:
        """Why no passage of the document can be trained."""
        if len(window.passage_lengths):
            return None if self._possible(window) else "too_short"
        if not len(window.token_ids):
            return NO_PASSAGES
        return None if len(window.token_ids) > 1 else "too_short"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """Draw this epoch's passages, and align what both sides read of them."""
        if not len(window.passage_lengths):
            return self._whole(window, special)
        possible = self._possible(window)
        k = min(self.passages or len(possible), len(possible))
        chosen: list[int] = sorted(rng.choice(len(possible), k, replace=False).tolist())
        drawn = [possible[i] for i in chosen]
        # Of all passages, so that it is the same whatever is drawn.
        shared = shared_length([each.teacher_before for each in possible])
        segments = tuple(self._segment(each, shared, len(drawn)) for each in drawn)
        return Example(window.document, window.source, possible[0].teacher_before[:shared], segments)

    def _possible(self, window: Window) -> list[PassageIds]:
        return [each for each in window.passages if self._first(each) < len(each.ids)]

    def _first(self, passage: PassageIds) -> int:
        """The first token of a passage that is trained."""
        unread = not len(passage.student_before) or not len(passage.teacher_before)
        return max(self.skip_tokens, int(unread))

    def _segment(self, passage: PassageIds, shared: int, drawn: int) -> Segment:
        first, before = self._first(passage), len(passage.student_before)
        ids = np.append(passage.student_before, passage.ids)
        positions = np.arange(before + first - 1, len(ids) - 1)
        return Segment(
            student_ids=ids,
            student_positions=positions,
            teacher_positions=positions - before + len(passage.teacher_before),
            target_ids=ids[positions + 1],
            weights=self._weights(len(positions), drawn),
            teacher_ids=np.append(passage.teacher_before[shared:], passage.ids),
        )

    def _weights(self, n: int, passages: int) -> np.ndarray:
        if self.averaging == "token":
            return np.ones(n, np.float32)
        chunk = np.arange(n) // (self.chunk_tokens or n)
        sizes = np.bincount(chunk)
        return (1.0 / (passages * len(sizes) * sizes[chunk])).astype(np.float32)

    def _whole(self, window: Window, special: SpecialTokens) -> Example:
        """A document's own text, which both sides read; in a later window the overlap is context."""
        ids = np.append(np.array(special.bos_ids, np.int64), window.token_ids)
        first = max(0, len(special.bos_ids) + window.first_new_token - 1)
        return Example(window.document, window.source, ids, (segment(ids, first, first, self.averaging),))


def shared_length(texts: Sequence[np.ndarray]) -> int:
    """How many tokens all texts begin with alike."""
    shortest = min(map(len, texts))
    same = np.ones(shortest, bool)
    for text in texts[1:]:
        same &= text[:shortest] == texts[0][:shortest]
    return shortest if same.all() else int(same.argmin())
