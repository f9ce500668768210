"""The whole document, for methods whose student reads what there is to read: fine-tuning and its kin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterword.types import Example, Segment, Window
from afterword.views.reading import Bos, Join, SpecialTokens
from afterword.views.segments import Averaging, position_weights


@dataclass(frozen=True)
class WholeDocument:
    """BOS, the document, EOS after its end; every token but the first is trained, EOS included.

    In a later window of a long document the overlap is context: read, not trained.
    """

    bos: Bos = "auto"
    averaging: Averaging = "document"
    join: Join = "document"
    needs_eos: bool = True
    anchored: bool = False

    def skip_reason(self, window: Window) -> str | None:
        """A document of one token and no BOS still predicts its EOS, so only an empty one is skipped."""
        return None if len(window.token_ids) else "too_short"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """No draw is made: every epoch reads the same."""
        assert special.eos_id is not None, "checked when the settings are read"
        eos = [special.eos_id] if window.is_document_end else []
        ids = np.concatenate([special.bos_ids, window.token_ids, eos]).astype(np.int64)
        # The first token whose prediction is trained; position 0 of the view is never a target.
        first = max(1, len(special.bos_ids) + window.first_new_token)
        positions = np.arange(first - 1, len(ids) - 1)
        (weight,) = position_weights([len(positions)], self.averaging)
        segment = Segment(
            student_ids=ids,
            student_positions=positions,
            teacher_positions=positions,
            target_ids=ids[positions + 1],
            weights=np.full(len(positions), weight, np.float32),
        )
        return Example(window.document, window.source, ids, (segment,))
