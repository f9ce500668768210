"""A model in this process writes, by transformers: in batches, and a document is read once for all that is asked of it.

The one rule: what is written for a request follows from the model, the prompt, the sampling and the seed; not from what
else is written, up to the rounding of the arithmetic. The same requests are written in the same batches, so that they
give the same texts to the bit.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from transformers import GenerationConfig

from afterword.models import (
    alone_beyond,
    causal_lm,
    continues_cleanly,
    only_reading,
    position_limit,
    weights_fingerprint,
)
from afterword.models.decoding import Beginnings, Writing, continues_beginnings, written_rows
from afterword.models.generation import end_of_turn, ends_of, prompt_ids
from afterword.types import Request, Sampling, Written
from afterword.writing.chat import as_conversation
from afterword.writing.together import alike, batches

BATCH_TOKENS = 20480
"""Rows × (longest prompt + new tokens)."""
_CAP_STEP = 256
"""Where the context ends before `max_new_tokens`, its end is rounded down to this, so that prompts of about the same
length are written together."""
_THOUGHTS = (re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL), re.compile(r"\A.*</think>", re.DOTALL))
"""In the text; and from its beginning, where the template opened them in the prompt."""


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

    @cached_property
    def _name(self) -> str:
        dtype = str(next(causal_lm(self.model).parameters()).dtype).removeprefix("torch.")
        return f"local {weights_fingerprint(self.model)} {dtype}"

    def prompt_of(self, request: Request) -> str:
        """What the model reads: the turns by its template, or the text."""
        return as_conversation(self.tokenizer, request.turns) if request.turns else request.text

    def tokens(self, requests: Sequence[Request]) -> int:
        """Of all prompts together."""
        return sum(len(self._ids(request)) for request in requests)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests that are written together, by their numbers."""
        prompts, alone = [self._ids(request) for request in requests], alone_beyond(causal_lm(self.model).config)
        kinds = defaultdict[tuple[Any, int], list[int]](list)
        for number, request in enumerate(requests):
            kinds[_order_of(request.sampling), self._room(request, prompts[number])].append(number)
        found = list[list[int]]()
        for (_, room), numbers in sorted(kinds.items()):
            of_kind = [prompts[number] for number in numbers]
            # Beyond that length a text is read with nothing beside it.
            long = alone is not None and max(map(len, of_kind)) + room > alone
            planned = batches(of_kind, room, 0 if long else self.batch_tokens, sharing=self._shares)
            found += [[numbers[row] for row in batch] for batch in planned]
        return found

    def write(
        self, requests: Sequence[Request], advance: Callable[[int], object] | None = None
    ) -> Iterator[dict[int, tuple[Written, int]]]:
        """The texts of one batch with their new tokens, by number, together. `advance`: so many more are done."""
        prompts, sampling = [self._ids(request) for request in requests], requests[0].sampling
        rooms = {self._room(request, prompt) for request, prompt in zip(requests, prompts, strict=True)}
        assert {request.sampling for request in requests} == {sampling}, "one kind in a batch"
        (room,) = rooms
        if room < 1:
            yield {number: (Written("", ended=False), 0) for number in range(len(requests))}
            return
        inner = causal_lm(self.model)
        ends, own = ends_of(self.model, self.tokenizer, end_of_turn(self.tokenizer)), inner.generation_config
        draws = np.stack([self._draws(request, room) for request in requests]) if sampling.temperature else None
        how = Writing(
            max_new_tokens=room,
            min_new_tokens=0,
            ends=ends,
            draws=draws,
            temperature=sampling.temperature or 1.0,
            top_p=sampling.top_p,
        )
        # generate(), where a model needs it, would fill in penalties and the like from the model's own.
        inner.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
        try:
            with only_reading(self.model):
                found = written_rows(inner, *self._begun(prompts, how, advance))
        finally:
            inner.generation_config = own
        done = zip(requests, found, strict=True)
        yield {number: (self._written(each, ids, ends), len(ids)) for number, (each, ids) in enumerate(done)}

    def _begun(
        self, prompts: list[list[int]], how: Writing, advance: Callable[[int], object] | None
    ) -> tuple[Any, ...]:
        """Arguments of `written_rows`: the prompts whole, or cut at the beginnings that several have."""
        groups = alike(prompts) if self._shares else []
        if not any(group.shared for group in groups):
            return prompts, how, advance
        beginnings, of_rows = list[list[int]](), [0] * len(prompts)
        for number, group in enumerate(groups):
            first = prompts[group.rows[0]]
            beginnings.append(first[: group.shared or len(first) - 1])
            for row in group.rows:
                of_rows[row] = number
        rest = [prompt[len(beginnings[of_rows[row]]) :] for row, prompt in enumerate(prompts)]
        return rest, how, advance, Beginnings(beginnings, of_rows)

    @cached_property
    def _shares(self) -> bool:
        return self.shares and continues_beginnings(causal_lm(self.model)) and continues_cleanly(self.model)

    def _ids(self, request: Request) -> list[int]:
        prompt = self.prompt_of(request)
        if self.tokenizer.chat_template is None or request.turns or prompt.startswith(self.tokenizer.bos_token or "\0"):
            return prompt_ids(self.tokenizer, prompt)
        ids = list[int](self.tokenizer(prompt, verbose=False)["input_ids"])
        return ids[:-1] if ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def _room(self, request: Request, prompt: Sequence[int]) -> int:
        """New tokens that the context has room for behind the prompt, as many as are asked for at most; 0: none."""
        asked, limit = request.sampling.max_new_tokens, position_limit(causal_lm(self.model).config)
        room = asked if limit is None else min(asked, limit - len(prompt))
        return room if room in (asked, 0) or room < _CAP_STEP else room - room % _CAP_STEP

    def _draws(self, request: Request, room: int) -> np.ndarray:
        """[room] float64 in [0, 1): random numbers of the request's own."""
        content = json.dumps([self.prompt_of(request), asdict(request.sampling), request.seed])
        return np.random.default_rng(list(hashlib.sha256(content.encode()).digest())).random(room)

    def _written(self, request: Request, ids: Sequence[int], ends: frozenset[int]) -> Written:
        ended = bool(ids) and ids[-1] in ends
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
        return Written(without_thoughts(text).strip() if request.turns else text, ended)


def without_thoughts(text: str) -> str:
    """What a model says after it has thought aloud; nothing where it did not come to an end of that.

    >>> without_thoughts("<think>Hm.</think>Yes.")
    'Yes.'
    """
    for thoughts in _THOUGHTS:
        text = thoughts.sub("", text)
    return text


def _order_of(sampling: Sampling) -> tuple[float, ...]:
    return (sampling.max_new_tokens, sampling.temperature, sampling.top_p)
