"""A model that writes in the processes of a pool: batches are given out, and each process has a model of its own.

The one rule: which texts are written together follows from the requests alone, as in one process. So the texts are the
same, wherever they are written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from afterword.models import load_tokenizer
from afterword.pool import Pool
from afterword.types import Request
from afterword.writing.local import LocalGenerator, load_to_write
from afterword.writing.replies import prompt_of, prompt_tokens
from afterword.writing.writer import Advance, Batch

_SHARES = 2
"""For each process, where it loads its model anew for every task."""


@dataclass(frozen=True)
class ModelNamed:
    """A model as every process loads it."""

    name: str
    precision: str = "auto"


@dataclass(frozen=True)
class _Share:
    """What a process is given."""

    model: ModelNamed
    batches: Sequence[Sequence[Request]]


@dataclass(frozen=True, eq=False)
class SpreadGenerator:
    """A model in the processes of a pool; none of it is in this one."""

    pool: Pool
    model: ModelNamed
    tokenizer: Any

    @property
    def name(self) -> str:
        """The content of its weights, and what they are held in where it writes."""
        return self._asked_once

    @cached_property
    def _asked_once(self) -> str:
        ((_, name),) = self.pool.results(_name_of, [self.model])
        return name

    def prompt_of(self, request: Request) -> str:
        """What the model reads: the turns by its template, or the text."""
        return prompt_of(self.tokenizer, request)

    def tokens(self, requests: Sequence[Request]) -> int:
        """Of all prompts together."""
        return sum(len(prompt_tokens(self.tokenizer, request)) for request in requests)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """As one process puts them together. What a model can share of its prompts is known where it is."""
        ((_, batches),) = self.pool.results(_batches_of, [_Share(self.model, [requests])])
        return batches

    def write(self, requests: Sequence[Request], advance: Advance) -> Iterator[Batch]:
        """The texts of one batch."""
        yield from (batch for _, batch in self.write_all([requests]))

    def write_all(self, batches: Sequence[Sequence[Request]]) -> Iterator[tuple[int, Batch]]:
        """The texts of every batch with its number, as soon as they are there."""
        shares = len(batches) if self.pool.keeps else min(len(batches), _SHARES * self.pool.size)
        # The longest come first, so each share has some of every length.
        numbers = [range(first, len(batches), shares) for first in range(shares)]
        given = [_Share(self.model, [batches[number] for number in share]) for share in numbers]
        for share, texts in self.pool.results(_written, given):
            yield from zip(numbers[share], texts, strict=True)


@lru_cache(maxsize=1)
def _loaded(model: ModelNamed) -> LocalGenerator:
    return LocalGenerator(load_to_write(model.name, model.precision), load_tokenizer(model.name))


def _name_of(model: ModelNamed) -> str:
    return _loaded(model).name


def _batches_of(share: _Share) -> list[list[int]]:
    (requests,) = share.batches
    return _loaded(share.model).batches(requests)


def _written(share: _Share) -> list[Batch]:
    generator, found = _loaded(share.model), list[Batch]()
    for requests in share.batches:
        texts: Batch = {}
        for part in generator.write(requests, lambda _: None):
            texts |= part
        found.append(texts)
    return found
