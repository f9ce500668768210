"""Questions that are written to and chosen from, where what their prompts begin with is read once for all of them.

A document stands before each question that is asked of it, once to write an answer and once to choose among given ones.
The one rule: every prompt gives what it gives when it is read whole, up to the rounding of the arithmetic.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from afterword.distributed import own_share, put_together, shares
from afterword.evaluation.choices import Asked, Likelihoods, TokenIds, likelihoods_behind
from afterword.models import ReadPrompts, causal_lm, continues_cleanly, read_prompts, side_by_side
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
    """None where there is nothing to choose from."""
    most: int
    """Tokens that are written at most."""


def is_worth_sharing(model: Any, put: Sequence[Put]) -> bool:
    """Whether prompts begin alike with enough to be read once, of a model that goes on from it."""
    shared = begun(_prompts(put)).shared
    return shared and continues_beginnings(causal_lm(model)) and continues_cleanly(model)


@torch.inference_mode()
def written_and_likely(
    model: Any, put: Sequence[Put], ends: Collection[int], advance: Callable[[int], object]
) -> list[tuple[list[int], Likelihoods]]:
    """The greedy answer to each question, with the token that ended it, and how likely its candidates are.

    Of a model in eval mode that `is_worth_sharing`. `ends`: tokens that end an answer. `advance` is told how many more
    are answered.
    """
    found = dict[int, tuple[list[int], Likelihoods]]()
    for rows in own_share(list(_batches(put, BATCH_TOKENS // shares()))):
        found |= zip(rows, _of_batch(model, [put[row] for row in rows], ends, advance), strict=True)
    here, found = len(found), put_together(found)
    advance(len(found) - here)
    return [found[row] for row in range(len(put))]


def _batches(put: Sequence[Put], batch_tokens: int) -> Iterator[list[int]]:
    """Questions, by number, those with one beginning side by side and the longest of them first."""
    parts, new_tokens = begun(_prompts(put)), max((each.most for each in put), default=0)

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
    model: Any, put: Sequence[Put], ends: Collection[int], advance: Callable[[int], object]
) -> list[tuple[list[int], Likelihoods]]:
    groups = [_read(model, put, rows) for rows in _alike_in_length(put)]
    found = dict[int, tuple[list[int], Likelihoods]]()
    for together in _written_together(groups):
        rest = [prompt for group in together for prompt in group.rest]
        most = [put[row].most for group in together for row in group.rows]
        how = Writing(max_new_tokens=max(most), min_new_tokens=0, ends=ends, most=most)
        behind = side_by_side([(group.read, group.begins) for group in together])
        written = iter(written_rows(causal_lm(model), rest, how, advance, behind))
        for group in together:
            likely = likelihoods_behind(model, group.read, *group.to_choose, batch_tokens=BATCH_TOKENS)
            found |= {row: (next(written), each) for row, each in zip(group.rows, likely, strict=True)}
    return [found[row] for row in range(len(put))]


@dataclass(frozen=True, eq=False)
class _Group:
    """Questions whose beginnings have been read."""

    rows: Sequence[int]
    read: ReadPrompts
    begins: Sequence[int]
    """Of each question, the beginning of the prompt that it is written to."""
    rest: Sequence[TokenIds]
    """What goes on from there."""
    to_choose: tuple[Sequence[int], Sequence[Asked]]
    """Of each question, the beginning of the prompt that the candidates stand behind, and what goes on from it."""


def _read(model: Any, put: Sequence[Put], rows: Sequence[int]) -> _Group:
    some, count = [put[row] for row in rows], len(rows)
    parts = begun(_prompts(some))
    there = iter(zip(parts.of_rows[count:], parts.rest[count:], strict=True))
    choosing: list[tuple[int, TokenIds]] = [next(there) if each.candidates else (0, ()) for each in some]
    asked = [(prompt, each.candidates) for (_, prompt), each in zip(choosing, some, strict=True)]
    to_choose = ([begins for begins, _ in choosing], asked)
    return _Group(rows, read_prompts(model, parts.beginnings), parts.of_rows[:count], parts.rest[:count], to_choose)


def _written_together(groups: Sequence[_Group]) -> Iterator[list[_Group]]:
    """Groups, the longest first, that are written to in one batch: each step reads all weights, and all padding."""
    batch, padding = list[_Group](), 0
    for group in groups:
        longest = batch[0].read.mask.shape[1] if batch else 0
        padding += len(group.rows) * max(0, longest - group.read.mask.shape[1])
        if padding > _PADDING_TOKENS:
            yield batch
            batch, padding = [], 0
        batch.append(group)
    if batch:
        yield batch


def _alike_in_length(put: Sequence[Put]) -> Iterator[list[int]]:
    """Questions, by number, whose beginnings are of about the same length; those with one beginning are together."""
    parts = begun(_prompts(put))
    lengths = [len(parts.beginnings[parts.of_rows[row]]) for row in range(len(put))]
    group = list[int]()
    for row in sorted(range(len(put)), key=lambda row: -lengths[row]):
        if group and lengths[row] < _REAL_SHARE * lengths[group[0]]:
            yield group
            group = []
        group.append(row)
    yield group


_REAL_SHARE = 0.7
"""Of the longest beginning that is read with it, what another one has at least: the rest would be padding."""
_PADDING_TOKENS = 4096
"""What a step reads of padding in the time of reading all weights, of a small model; of larger ones it is more."""


def _prompts(put: Sequence[Put]) -> list[TokenIds]:
    """Of all questions those to write to, then those to choose behind, where there is something to choose from."""
    return [*(each.to_write for each in put), *(each.to_choose for each in put if each.candidates)]
