"""Which prompts are written together: those of about the same length, and what several of them begin with is read once.

The one rule: it follows from the prompts alone, so that a run that is stopped and resumed writes in the same batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEAST_SHARED = 64
"""Tokens: less is read again as fast as it is repeated."""
_MOST_TOGETHER = 64
"""Rows of a batch, and prompts that share a beginning."""
_USUAL_NEW_TOKENS = 1024
"""What a batch has room for where longer texts are allowed: most end long before, and leave it."""

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Alike:
    """Prompts that begin alike."""

    shared: int
    """Tokens of the beginning; 0 where the prompt is alone."""
    rows: tuple[int, ...]
    """Which prompts."""


@dataclass(frozen=True)
class Begun:
    """Prompts in two parts: what some of them begin with alike, each such beginning once, and what goes on from it."""

    beginnings: Sequence[TokenIds]
    of_rows: Sequence[int]
    """Of each prompt, the number of its beginning."""
    rest: Sequence[TokenIds]
    """A token at least."""
    shared: bool
    """Whether any beginning is that of several prompts."""


def begun(prompts: Sequence[TokenIds]) -> Begun:
    """The prompts in two parts. One that begins like no other begins with all but its last token."""
    groups = alike(prompts)
    beginnings, of_rows = list[TokenIds](), [0] * len(prompts)
    for number, group in enumerate(groups):
        first = prompts[group.rows[0]]
        beginnings.append(first[: group.shared or len(first) - 1])
        for row in group.rows:
            of_rows[row] = number
    rest = [prompt[len(beginnings[number]) :] for prompt, number in zip(prompts, of_rows, strict=True)]
    return Begun(beginnings, of_rows, rest, shared=any(group.shared for group in groups))


def alike(prompts: Sequence[TokenIds], least: int = LEAST_SHARED) -> list[Alike]:
    """Every prompt in one group, so that the fewest tokens are read in all; at least one token of each is its own."""
    order = sorted(range(len(prompts)), key=lambda row: list(prompts[row]))
    shared = [_shared(prompts[a], prompts[b]) for a, b in pairwise(order)]
    # Sorted, the best groups are neighbours: the best end of the first i prompts follows from those of fewer.
    saved, begins = [0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        saved[end], begins[end], common = saved[end - 1], end - 1, least
        for begin in range(end - 2, max(-1, end - 1 - _MOST_TOGETHER), -1):
            common = shared[begin] if begin == end - 2 else min(common, shared[begin])
            if common < least:
                break
            if (found := saved[begin] + (end - begin - 1) * common) > saved[end]:
                saved[end], begins[end] = found, begin
    groups, end = list[Alike](), len(order)
    while end:
        begin = begins[end]
        groups.append(Alike(min(shared[begin : end - 1], default=0), tuple(order[begin:end])))
        end = begin
    return groups[::-1]


def batches(prompts: Sequence[TokenIds], new_tokens: int, batch_tokens: int, *, sharing: bool) -> list[list[int]]:
    """The prompts' numbers, longest first; `batch_tokens` bounds rows × (longest prompt + new tokens).

    With `sharing`, prompts that begin alike are together, as far as they fit.
    """
    groups = alike(prompts) if sharing else [Alike(0, (row,)) for row in range(len(prompts))]
    groups.sort(key=lambda group: (group.shared == 0, -group.shared, -max(len(prompts[row]) for row in group.rows)))
    found, expected = list[list[int]](), min(new_tokens, _USUAL_NEW_TOKENS)
    for shares in (True, False):
        batch, longest = list[int](), 0
        for row in (row for group in groups if (group.shared > 0) == shares for row in group.rows):
            longest = max(longest, len(prompts[row]))
            if batch and ((len(batch) + 1) * (longest + expected) > batch_tokens or len(batch) == _MOST_TOGETHER):
                found.append(batch)
                batch, longest = [], len(prompts[row])
            batch.append(row)
        found += [batch] if batch else []
    return found


def _shared(one: TokenIds, other: TokenIds) -> int:
    """Tokens that two prompts begin with alike, without the last of either."""
    most = min(len(one), len(other)) - 1
    return next((i for i in range(most) if one[i] != other[i]), max(0, most))
