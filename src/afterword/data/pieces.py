"""Pieces of a document, each taught by what stands directly before it: the view of deep context distillation.

From arXiv:2503.08727: the student reads a piece, the teacher the piece before it and the piece. How long pieces are,
and that they end at sentences, so that none begins with half of one, is ours.
"""

from dataclasses import dataclass

import numpy as np

from afterword.data.views import MIN_TARGET_TOKENS, View, segment
from afterword.data.windows import SpecialTokens
from afterword.method_options import PieceTokens
from afterword.types import Example, Window

Piece = tuple[int, int, int]
"""Token offsets: where the piece before it begins, where it begins itself, and where it ends."""


@dataclass(frozen=True, kw_only=True)
class NextPiece(View):
    """The student reads each piece of the document alone, the teacher with the piece before it.

    A piece has as many whole sentences as fit `piece_tokens`; a longer sentence is cut there. What would be one piece
    is cut in two at the sentence that begins nearest its middle. The first piece is never trained, nor the first token
    of any: alone, the student has nothing to predict it from.
    """

    piece_tokens: PieceTokens = 128
    """Ours."""

    def skip_reason(self, window: Window) -> str | None:
        """A document of one sentence has nothing before it."""
        return None if self._pieces(window) else "one_sentence"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """No draw is made: every epoch reads the same."""
        bos, ids, pieces = np.array(special.bos_ids, np.int64), window.token_ids, self._pieces(window)
        segments = tuple(
            segment(
                np.append(bos, ids[start:end]),
                len(bos),
                len(bos) + start - before,
                self.averaging,
                len(pieces),
                teacher_ids=ids[before:end],
            )
            for before, start, end in pieces
        )
        return Example(window.document, window.source, bos, segments)

    def _pieces(self, window: Window) -> list[Piece]:
        """Those that can be trained. In a later window of a long document the overlap is the piece before the first."""
        new, end = window.first_new_token, len(window.token_ids)
        starts = [start for start in window.sentence_starts.tolist() if start > new]
        borders = [new]
        while borders[-1] < end:
            last = borders[-1] + self.piece_tokens
            fitting = [start for start in (*starts, end) if borders[-1] < start <= last]
            borders.append(fitting[-1] if fitting else min(last, end))
        if starts and not new and len(borders) == 2:
            borders = [0, min(starts, key=lambda start: abs(2 * start - end)), end]
        if new:
            borders.insert(0, max(0, new - self.piece_tokens))
        found = zip(borders, borders[1:], borders[2:], strict=False)
        return [piece for piece in found if piece[2] - piece[1] >= MIN_TARGET_TOKENS]
