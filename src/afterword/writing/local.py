"""A model in this process writes, by transformers: in batches, and a document is read once for all that is asked of it.

The one rule: what is written for a request follows from the model, the prompt, the sampling and the seed; not from what
else is written, up to the rounding of the arithmetic. The same requests are written in the same batches, so that they
give the same texts to the bit.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from transformers import GenerationConfig

from afterword.distributed import device_type
from afterword.models import (
    alone_beyond,
    causal_lm,
    continues_cleanly,
    evaluation_dtype,
    load_adapted,
    only_reading,
    position_limit,
    read_prompts,
    weights_fingerprint,
)
from afterword.models.decoding import Writing, continues_beginnings, written_rows
from afterword.models.generation import end_of_turn, ends_of
from afterword.types import Request, Sampling, Written
from afterword.writing.mixed import mixed_rows
from afterword.writing.replies import prompt_of, prompt_tokens, reply_of, room_of, seed_of
from afterword.writing.together import batches, begun

BATCH_TOKENS = 20480
"""Rows × (longest prompt + new tokens)."""


def load_to_write(name: str, precision: str = "auto") -> Any:
    """A model as it writes and answers: in eval mode, on the GPU where there is one, in bfloat16 where that pays."""
    return load_adapted(name, dtype=evaluation_dtype([name], precision)).eval().to(device_type())


@dataclass(frozen=True, eq=False)
class LocalGenerator:
    """A model in this process. It writes in eval mode and without gradients, and is left as it was."""

    model: Any
    tokenizer: Any
    batch_tokens: int = BATCH_TOKENS
    shares: bool = True
    """Whether what prompts begin with alike is read once, where the model allows it."""

    @property
    def name(self) -> str:
        """The content of its weights, and what they are held in."""
        return self._name

    def prompt_of(self, request: Request) -> str:
        """What the model reads: the turns by its template, or the text."""
        return prompt_of(self.tokenizer, request)

    def tokens(self, requests: Sequence[Request]) -> int:
        """Of all prompts together."""
        return sum(len(prompt_tokens(self.tokenizer, request)) for request in requests)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests that are written together, by their numbers."""
        prompts = [prompt_tokens(self.tokenizer, request) for request in requests]
        kinds = defaultdict[tuple[bool, tuple[float, ...], int], list[int]](list)
        for number, request in enumerate(requests):
            mixed, room = bool(request.other_turns), self._room(request, prompts[number])
            kinds[mixed, _order_of(request.sampling), room].append(number)
        alone, found = alone_beyond(causal_lm(self.model).config), list[list[int]]()
        for (mixed, _, room), numbers in sorted(kinds.items()):
            of_kind = [prompts[number] for number in numbers]
            # Beyond that length a text is read with nothing beside it.
            long = alone is not None and max(map(len, of_kind)) + room > alone
            # A mixed text takes two rows, each with a prompt of its own.
            tokens = 0 if long else self.batch_tokens // (1 + mixed)
            planned = batches(of_kind, room, tokens, sharing=self._sharing and not mixed)
            found += [[numbers[row] for row in batch] for batch in planned]
        return found

    def write(
        self, requests: Sequence[Request], advance: Callable[[int], object]
    ) -> Iterator[dict[int, tuple[Written, int]]]:
        """The texts of one batch with their new tokens, by number, together. `advance`: so many more are done."""
        prompts, sampling = [prompt_tokens(self.tokenizer, request) for request in requests], requests[0].sampling
        (room,) = {self._room(request, prompt) for request, prompt in zip(requests, prompts, strict=True)}
        assert {request.sampling for request in requests} == {sampling}, "one kind in a batch"
        if room < 1:
            yield {number: (Written("", ended=False), 0) for number in range(len(requests))}
            return
        inner = causal_lm(self.model)
        ends, own = ends_of(self.model, self.tokenizer, end_of_turn(self.tokenizer)), inner.generation_config
        how = Writing(
            max_new_tokens=room,
            min_new_tokens=0,
            ends=ends,
            draws=self._draws(requests, room) if sampling.temperature else None,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
        )
        # generate(), where a model needs it, would fill in penalties and the like from the model's own.
        inner.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
        try:
            with only_reading(self.model):
                found = self._rows(requests, prompts, how, advance)
        finally:
            inner.generation_config = own
        replies = [reply_of(self.tokenizer, each, ids, ends) for each, ids in zip(requests, found, strict=True)]
        yield {n: (reply, len(ids)) for n, (reply, ids) in enumerate(zip(replies, found, strict=True))}

    def _rows(
        self, requests: Sequence[Request], prompts: list[list[int]], how: Writing, advance: Callable[[int], object]
    ) -> list[list[int]]:
        """The new tokens of each request."""
        inner = causal_lm(self.model)
        if not requests[0].other_turns:
            parts = begun(prompts) if self._sharing else None
            if parts is None or not parts.shared:
                return written_rows(inner, prompts, how, advance)
            read = read_prompts(self.model, parts.beginnings).of_rows(parts.of_rows)
            return written_rows(inner, parts.rest, how, advance, read)
        others = [replace(request, turns=request.other_turns, other_turns=()) for request in requests]
        pairs = list(zip(prompts, (prompt_tokens(self.tokenizer, each) for each in others), strict=True))
        # The first half of a request's random numbers draws its tokens.
        sides = self._draws(requests, 2 * how.max_new_tokens)[:, how.max_new_tokens :]
        found = mixed_rows(inner, pairs, how, sides, [request.share for request in requests])
        advance(len(requests))
        return found

    @cached_property
    def _name(self) -> str:
        dtype = str(next(causal_lm(self.model).parameters()).dtype).removeprefix("torch.")
        return f"local {weights_fingerprint(self.model)} {dtype}"

    @cached_property
    def _sharing(self) -> bool:
        return self.shares and continues_beginnings(causal_lm(self.model)) and continues_cleanly(self.model)

    def _room(self, request: Request, prompt: Sequence[int]) -> int:
        return room_of(request, prompt, position_limit(causal_lm(self.model).config))

    def _draws(self, requests: Sequence[Request], room: int) -> np.ndarray:
        """[B, room] float64 in [0, 1): random numbers of each request's own."""
        seeds = [seed_of(self.tokenizer, request) for request in requests]
        return np.stack([np.random.default_rng(seed).random(room) for seed in seeds])


def _order_of(sampling: Sampling) -> tuple[float, ...]:
    return (sampling.max_new_tokens, sampling.temperature, sampling.top_p)
