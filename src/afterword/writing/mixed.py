"""One text written after two conversations: before every token it is drawn which of them the model has read.

Both are read along, so the text costs twice. MixSD (arXiv:2605.16865) mixes so what a model says with a fact before it
and without.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword.models.decoding import TokenIds, Writing, written_rows


@dataclass(frozen=True, kw_only=True)
class _InPairs(Writing):
    """Rows 2i and 2i + 1 get the same tokens: those of the first where `of_first` says so, else of the second."""

    of_first: np.ndarray  # [pairs, max_new_tokens] bool

    def chosen(self, scores: Tensor, rows: Sequence[int], written: Sequence[TokenIds]) -> Tensor:
        """[B] int64, two by two the same."""
        number = len(written[rows[0]])
        tokens = super().chosen(scores, rows, written).unflatten(0, (-1, 2))
        # The two end together, so they also leave a batch together.
        pairs = [row // 2 for row in rows[::2]]
        first = torch.from_numpy(self.of_first[pairs, number]).to(tokens.device)
        return torch.where(first, tokens[:, 0], tokens[:, 1]).repeat_interleave(2)


def mixed_rows(
    model: Any, prompts: Sequence[tuple[TokenIds, TokenIds]], how: Writing, sides: np.ndarray, shares: Sequence[float]
) -> list[list[int]]:
    """A text for each pair of prompts, up to and including the token that ended it.

    A token is written after the first prompt where the number in `sides`, [pairs, max_new_tokens] in [0, 1), is below
    the pair's share, else after the second.
    """
    in_pairs = _InPairs(
        max_new_tokens=how.max_new_tokens,
        min_new_tokens=how.min_new_tokens,
        ends=how.ends,
        draws=None if how.draws is None else np.repeat(how.draws, 2, axis=0),
        temperature=how.temperature,
        top_p=how.top_p,
        of_first=sides < np.array(shares)[:, None],
    )
    return written_rows(model, [prompt for pair in prompts for prompt in pair], in_pairs)[::2]
