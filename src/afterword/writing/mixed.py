"""One text written after two conversations: before every token it is drawn which of them the model has read.

Both are read along, so the text costs twice. MixSD (arXiv:2605.16865) mixes so what a model says with a fact before it
and without.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword.models.decoding import TokenIds, Writing, written_rows
from afterword.models.generation import end_of_turn, ends_of, prompt_ids
from afterword.storage.hashes import json_sha256
from afterword.types import Request
from afterword.writing.chat import as_conversation

_BATCH_TOKENS = 20480


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


def mixed_texts(model: Any, tokenizer: Any, requests: Sequence[Request]) -> Iterator[tuple[int, list[int]]]:
    """The tokens for each request that has other turns, by its number, up to and including the one that ended it.

    What is written for a request follows from it alone, up to the rounding of the arithmetic.
    """
    pairs = [
        [prompt_ids(tokenizer, as_conversation(tokenizer, turns)) for turns in (request.turns, request.other_turns)]
        for request in requests
    ]
    ends = ends_of(model, tokenizer, end_of_turn(tokenizer))
    for batch in _batches(pairs, requests):
        sampling = requests[batch[0]].sampling
        draws = np.stack([_random(requests[i]) for i in batch])  # [pairs, 2, max_new_tokens]
        share = np.array([requests[i].share for i in batch])[:, None]
        how = _InPairs(
            max_new_tokens=sampling.max_new_tokens,
            min_new_tokens=0,
            ends=ends,
            draws=np.repeat(draws[:, 0], 2, axis=0) if sampling.temperature else None,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
            of_first=draws[:, 1] < share,
        )
        rows = written_rows(model, [prompt for i in batch for prompt in pairs[i]], how)
        yield from zip(batch, rows[::2], strict=True)


def _random(request: Request) -> np.ndarray:
    """[2, max_new_tokens] float64 in [0, 1): for the tokens, and for which side they are of."""
    content = [request.turns, request.other_turns, request.seed]
    return np.random.default_rng(int(json_sha256(content), 16)).random((2, request.sampling.max_new_tokens))


def _batches(pairs: Sequence[Sequence[TokenIds]], requests: Sequence[Request]) -> Iterator[list[int]]:
    """Numbers of requests of one sampling, those with long prompts first."""
    longest = [max(map(len, pair)) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: (str(requests[i].sampling), -longest[i]))
    while order:
        sampling = requests[order[0]].sampling
        size = max(1, _BATCH_TOKENS // (2 * (longest[order[0]] + sampling.max_new_tokens)))
        batch = [i for i in order[:size] if requests[i].sampling == sampling]
        yield batch
        order = order[len(batch) :]
