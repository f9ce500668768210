"""Token by token: a batch of prompts is written together, and a row that has ended leaves it.

The one rule: which token follows is decided of a row's own scores, and of random numbers of its own.
"""

import contextlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationConfig, GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from afterword.models.backbone import device_of
from afterword.models.laid_out import laid_out
from afterword.models.shared_prompts import ReadPrompts

TokenIds = Sequence[int]
Forbidden = Mapping[tuple[int, ...], Sequence[int]]
"""By the tokens that a completion has begun with, those that may not follow."""
_MOST_KEPT = 1024
"""Tokens that are sorted first: a whole vocabulary takes longer to sort than to be drawn from."""
_BLOCK = 256
"""Tokens whose probabilities are summed before one of them is looked for."""
_ROOM_TOKENS = 64
WORTH_LAYING_OUT = 8
"""Steps: laying all weights out takes as long as a few."""
_LEAVE_TOGETHER = 8
"""Ended rows leave where they are an eighth of the batch: leaving copies what the others have read."""


@dataclass(frozen=True)
class Writing:
    """How a batch is written. What is a list has an entry for each row."""

    max_new_tokens: int
    min_new_tokens: int
    """Nothing ends a row before."""
    ends: Collection[int]
    """Tokens that end a row."""
    forbidden: Sequence[Forbidden] = ()
    """Of every row, or of none."""
    draws: np.ndarray | None = None
    """[rows, max_new_tokens] float64 in [0, 1); None: the likeliest token, always."""
    temperature: float = 1.0
    """Scores are divided by it before a token is drawn."""
    top_p: float = 1.0
    """Drawn from the likeliest tokens that this much of the probability is on; see `without_the_unlikely`."""
    most: Sequence[int] = ()
    """Of every row, the tokens after which it ends, `max_new_tokens` at most; or of none."""

    def ends_row(self, row: int, ids: TokenIds) -> bool:
        """Whether a row that has just got its last token ends with it."""
        return ids[-1] in self.ends or (bool(self.most) and len(ids) >= self.most[row])

    def completion(self, row: int, ids: list[int]) -> list[int]:
        """Of all tokens that were chosen for a row, those up to its end: it may stay in its batch for a while."""
        bound = ids[: self.most[row]] if self.most else ids
        return bound[: next((i for i, token in enumerate(bound, 1) if token in self.ends), len(bound))]

    def chosen(self, scores: Tensor, rows: Sequence[int], written: Sequence[TokenIds]) -> Tensor:
        """[B] int64: the next token of each of `rows`, whose scores are [B, V] and may be changed."""
        number = len(written[rows[0]])
        if number < self.min_new_tokens and self.ends:
            scores[:, sorted(self.ends)] = -torch.inf
        for place, row in enumerate(rows if self.forbidden else ()):
            scores[place, list(self.forbidden[row].get(tuple(written[row]), ()))] = -torch.inf
        if self.draws is None:
            return scores.argmax(-1)
        draws = torch.from_numpy(self.draws[list(rows), number])
        return drawn_tokens(scores / self.temperature, draws, self.top_p)


def drawn_tokens(scores: Tensor, draws: Tensor, top_p: float = 1.0) -> Tensor:
    """[B] int64: where the cumulated probability of scores [B, V] passes draws [B], float64 in [0, 1).

    Of the likeliest tokens alone, with `top_p` below 1.

    generate() would draw the rows of a batch from one global stream, so that a text would depend on its neighbours.
    """
    # On the CPU: float64 is unknown to MPS, and CUDA has no deterministic cumulative sum.
    probabilities = without_the_unlikely(scores.float().softmax(-1).cpu(), top_p)
    missing = -probabilities.shape[-1] % _BLOCK
    padded = torch.nn.functional.pad(probabilities, (0, missing)) if missing else probabilities
    blocks = padded.unflatten(-1, (-1, _BLOCK))  # [B, V / 256, 256]
    # Summed by blocks first: a tenth of the time of a cumulative sum over the vocabulary in float64.
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    level = draws[:, None] * sums[:, -1:]
    block = _first_above(sums, level)
    before = torch.nn.functional.pad(sums, (1, 0)).gather(1, block)
    inside = blocks[torch.arange(len(blocks)), block[:, 0]].double().cumsum(-1)
    return (block * _BLOCK + _first_above(inside, level - before))[:, 0].to(scores.device)


def without_the_unlikely(probabilities: Tensor, top_p: float) -> Tensor:
    """[B, V] with zeros but for the fewest of the likeliest tokens whose probabilities come to `top_p`.

    Tokens that are as likely as the last of them stay, too: which of equals is left out would be chance. What stays is
    not made to sum to 1. Nucleus sampling of Holtzman et al. 2020, arXiv:1904.09751.
    """
    if top_p >= 1:
        return probabilities
    size = probabilities.shape[-1]
    likeliest = probabilities.topk(min(_MOST_KEPT, size), dim=-1).values
    if size > _MOST_KEPT and bool((likeliest.sum(-1, dtype=torch.float64) < top_p).any()):
        likeliest = probabilities.sort(dim=-1, descending=True).values
    # A token stays where those before it do not come to top_p yet: the first one always.
    before = likeliest.double().cumsum(-1) - likeliest
    last = (before < top_p).sum(-1, keepdim=True) - 1
    return probabilities.where(probabilities >= likeliest.gather(-1, last), 0.0)


def _first_above(cumulated: Tensor, level: Tensor) -> Tensor:
    """[B, 1]: the first place where sums [B, K] pass levels [B, 1]; rounding never leads to one where they stand."""
    total = cumulated[:, -1:]
    level = level.clamp(min=0).minimum(torch.nextafter(total, torch.zeros_like(total)))
    # right=True passes over tokens of probability zero, where the sum does not grow.
    return torch.searchsorted(cumulated, level, right=True)


@torch.no_grad()
def written_rows(
    model: Any,
    prompts: Sequence[TokenIds],
    how: Writing,
    advance: Callable[[int], object] | None = None,
    behind: ReadPrompts | None = None,
) -> list[list[int]]:
    """The completions of a batch of prompts, each up to and including the token that ended it.

    `advance` is told how many more of them are done. `behind`: what was read before the prompts, row by row, which is
    used up; only a model takes it that `continues_beginnings`.
    """
    done = advance or (lambda _: None)
    with laid_out(model, len(prompts)) if how.max_new_tokens >= WORTH_LAYING_OUT else contextlib.nullcontext():
        if _goes_by_steps(model):
            return _by_steps(model, prompts, how, done, behind)
        assert behind is None, "the model takes no beginnings"
        found = _by_transformers(model, prompts, how)
    done(len(prompts))
    return found


def _by_steps(
    model: Any, prompts: Sequence[TokenIds], how: Writing, done: Callable[[int], object], behind: ReadPrompts | None
) -> list[list[int]]:
    ids, mask = _padded_on_the_left(prompts, device_of(model))
    rows, written = list(range(len(prompts))), [list[int]() for _ in prompts]
    cache = _with_room_behind(behind.cache) if behind else _roomy_cache(model)
    if behind:
        mask = torch.cat([behind.mask, mask], dim=1)
    over = set[int]()
    while True:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        scores = model(**inputs, use_cache=True, logits_to_keep=1).logits[:, -1].float()
        tokens = how.chosen(scores, rows, written)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            written[row].append(token)
        ended = {row for row in rows if how.ends_row(row, written[row])} - over
        over |= ended
        staying = [place for place, row in enumerate(rows) if row not in over]
        last = not staying or len(written[rows[0]]) == how.max_new_tokens
        if newly := len(ended) + (len(staying) if last else 0):
            done(newly)
        if last:
            return [how.completion(row, ids) for row, ids in enumerate(written)]
        if (len(rows) - len(staying)) * _LEAVE_TOGETHER >= len(rows):
            rows = [rows[place] for place in staying]
            kept = torch.tensor(staying, device=mask.device)
            tokens, mask = tokens[kept], mask[kept]
            cache.reorder_cache(kept)  # pyright: ignore[reportArgumentType]  # of any integers
        ids, mask = tokens[:, None], torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


def continues_beginnings(model: Any) -> bool:
    """Whether a text can go on from a beginning that was read before it, with padding between them.

    A sliding window counts the padding as if it were read.
    """
    return _goes_by_steps(model) and all(type(layer) is _Roomy for layer in _roomy_cache(model).layers)


def _padded_on_the_left(prompts: Sequence[TokenIds], device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and mask, [B, T] int64; so every row goes on from its own last token."""
    rows = [torch.tensor(prompt, dtype=torch.int64, device=device) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_side="left")
    return ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")


def _goes_by_steps(model: Any) -> bool:
    """Whether the model is called as all decoders with attention are; others know themselves what a step needs."""
    takes = inspect.signature(model.forward).parameters
    stock: Any = GenerationMixin
    own = type(model).prepare_inputs_for_generation is not stock.prepare_inputs_for_generation
    needed = {"position_ids", "past_key_values", "attention_mask", "logits_to_keep"}
    return needed <= takes.keys() and not own and not model.config.is_encoder_decoder and not model._is_stateful


def _roomy_cache(model: Any) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    cache.layers = [_Roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _with_room_behind(read: Any) -> Any:
    """A cache of layers that keep everything, as one with room: it takes over what they have."""
    for place, layer in enumerate(read.layers):
        read.layers[place] = _Roomy()
        vars(read.layers[place]).update(vars(layer))
    return read


class _Roomy(DynamicLayer):
    """Keys and values with room behind them: a new token is written there, and what was read is not copied again."""

    room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones included, [B, heads, T, size]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        read, new = self.get_seq_length(), (key_states, value_states)
        length = read + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < length:
            held: Any = (self.keys, self.values)
            keys, values = (_with_room(old, states, read, length) for old, states in zip(held, new, strict=True))
            self.room = (keys, values)
        for buffer, states in zip(self.room, new, strict=True):
            buffer[..., read:length, :] = states
        self.keys, self.values = (buffer[..., :length, :] for buffer in self.room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        """The rows of those indices, and room for them alone."""
        super().reorder_cache(beam_idx)
        self.room = None


def _with_room(old: Tensor, states: Tensor, read: int, length: int) -> Tensor:
    buffer = states.new_empty((*states.shape[:-2], length + _ROOM_TOKENS, states.shape[-1]))
    if read:
        buffer[..., :read, :] = old
    return buffer


class _Chosen(LogitsProcessor):
    """Leaves the one token possible that is to follow: greedy decoding of what this leaves is that token."""

    def __init__(self, how: Writing, rows: int):
        self.how, self.written, self.begun = how, [list[int]() for _ in range(rows)], False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, token in zip(self.written if self.begun else (), input_ids[:, -1].tolist(), strict=self.begun):
            row.append(token)
        self.begun = True
        tokens = self.how.chosen(scores.clone(), range(len(scores)), self.written)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _by_transformers(model: Any, prompts: Sequence[TokenIds], how: Writing) -> list[list[int]]:
    """The same by the model's own generate()."""
    ids, mask = _padded_on_the_left(prompts, device_of(model))
    # A pad is masked in front of a prompt, and cut off behind an end; without any end nothing is cut off.
    ends = sorted(how.ends)
    config = GenerationConfig(
        max_new_tokens=how.max_new_tokens, eos_token_id=ends or None, pad_token_id=(ends or [0])[0]
    )
    processors = LogitsProcessorList([_Chosen(how, len(prompts))])
    found = model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=processors)
    return [how.completion(row, ids) for row, ids in enumerate(found[:, ids.shape[1] :].tolist())]
