"""Questions that are written to and chosen from, where what their prompts begin with is read once for all of them.

A document stands before each question that is asked of it, once to write an answer and once to choose among given ones.
The one rule: every prompt gives what it gives when it is read whole, up to the rounding of the arithmetic.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from afterword.distributed import own_share, put_together, shares
from afterword.evaluation.choices import Likelihoods, TokenIds, likelihoods_behind
from afterword.models import causal_lm, continues_cleanly, read_prompts
from afterword.models.decoding import Writing, continues_beginnings, written_rows
from afterword.models.generation import BATCH_TOKENS
from afterword.writing.together import begun


@dataclass(frozen=True, slots=True)
class Put:
    """A question in tokens."""

    to_write: TokenIds
    """The prompt that an answer is written to."""
    to_choose: TokenIds
    """The prompt that the candidates stand behind."""
    candidates: Sequence[TokenIds]


def is_worth_sharing(model: Any, put: Sequence[Put]) -> bool:
    """Whether prompts begin alike with enough to be read once, of a model that goes on from it."""
    shared = begun(_prompts(put)).shared
    return shared and continues_beginnings(causal_lm(model)) and continues_cleanly(model)


@torch.inference_mode()
def written_and_likely(
    model: Any, put: Sequence[Put], how: Writing, advance: Callable[[int], object]
) -> list[tuple[list[int], Likelihoods]]:
    """The answer to each question, with the token that ended it, and how likely its candidates are.

    Of a model in eval mode that `is_worth_sharing`; `how` has nothing that is of single rows. `advance` is told how
    many more are answered.
    """
    found = dict[int, tuple[list[int], Likelihoods]]()
    for rows in own_share(list(_batches(put, how.max_new_tokens, BATCH_TOKENS // shares()))):
        found |= zip(rows, _of_batch(model, [put[row] for row in rows], how, advance), strict=True)
    here, found = len(found), put_together(found)
    advance(len(found) - here)
    return [found[row] for row in range(len(put))]


def _batches(put: Sequence[Put], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Questions, by number, those with one beginning side by side and the longest of them first."""
    parts = begun(_prompts(put))

    def place(row: int) -> tuple[int, int, int]:
        """By the length of its beginning, by the beginning, by its own length."""
        beginning = parts.of_rows[row]
        return -len(parts.beginnings[beginning]), beginning, -len(put[row].to_write)

    batch, longest = list[int](), 0
    for row in sorted(range(len(put)), key=place):
        longest = max(longest, len(put[row].to_write))
        if batch and (len(batch) + 1) * (longest + new_tokens) > batch_tokens:
            yield batch
            batch, longest = [], len(put[row].to_write)
        batch.append(row)
    if batch:
        yield batch


def _of_batch(
    model: Any, put: Sequence[Put], how: Writing, advance: Callable[[int], object]
) -> list[tuple[list[int], Likelihoods]]:
    parts, count = begun(_prompts(put)), len(put)
    read = read_prompts(model, parts.beginnings)
    written = written_rows(causal_lm(model), parts.rest[:count], how, advance, read.of_rows(parts.of_rows[:count]))
    asked = [(prompt, each.candidates) for prompt, each in zip(parts.rest[count:], put, strict=True)]
    likely = likelihoods_behind(model, read, parts.of_rows[count:], asked, batch_tokens=BATCH_TOKENS)
    return list(zip(written, likely, strict=True))


def _prompts(put: Sequence[Put]) -> list[TokenIds]:
    """Of all questions those to write to, then those to choose behind."""
    return [*(each.to_write for each in put), *(each.to_choose for each in put)]
