"""Prompts that are read once, and then continued in several ways: keys and values of a prompt are kept and repeated.

The one rule: whatever is continued gives the hidden states that prompt and continuation give when they are read
together, up to the rounding of the arithmetic; `continues_cleanly` says of a model whether that holds.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from afterword.models.backbone import backbone_of, cache_of_rows, causal_lm, device_of, only_reading
from afterword.models.checks import alone_beyond, is_close, reading_autocast, vocabulary_of

TokenIds = Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class ReadPrompts:
    """What a model keeps of prompts that it has read, padded on the left."""

    cache: Any
    mask: Tensor  # [B, T] int64
    last_states: Tensor  # [B, H], which predict the first token that follows

    @property
    def lengths(self) -> Tensor:
        """[B] int64"""
        return self.mask.sum(-1)

    def of_rows(self, rows: Sequence[int]) -> "ReadPrompts":
        """A copy of some of them, any several times; what was read stays as it is."""
        chosen = torch.tensor(rows, device=self.mask.device)
        return ReadPrompts(cache_of_rows(self.cache, chosen), self.mask[chosen], self.last_states[chosen])


def side_by_side(parts: Sequence[tuple[ReadPrompts, Sequence[int]]]) -> ReadPrompts:
    """Rows of each, one after the other, as `of_rows` copies them, padded on the left to one length.

    Only of caches that keep everything.
    """
    longest = max(read.mask.shape[1] for read, _ in parts)
    chosen = [torch.tensor(rows, device=read.mask.device) for read, rows in parts]
    cache = copy.copy(parts[0][0].cache)
    cache.layers = [
        _joined(layers, chosen, longest) for layers in zip(*(read.cache.layers for read, _ in parts), strict=True)
    ]
    pairs = [(read, rows) for (read, _), rows in zip(parts, chosen, strict=True)]
    mask = torch.cat([pad(read.mask[rows], (longest - read.mask.shape[1], 0)) for read, rows in pairs])
    return ReadPrompts(cache, mask, torch.cat([read.last_states[rows] for read, rows in pairs]))


def _joined(layers: Sequence[Any], chosen: Sequence[Tensor], longest: int) -> Any:
    """One layer with keys and values of the chosen rows of each."""
    joined = copy.copy(layers[0])
    for name in ("keys", "values"):
        held: list[Tensor] = [getattr(layer, name)[rows] for layer, rows in zip(layers, chosen, strict=True)]
        setattr(joined, name, torch.cat([pad(each, (0, 0, longest - each.shape[-2], 0)) for each in held]))
    return joined


def read_prompts(model: Any, prompts: Sequence[TokenIds], behind: ReadPrompts | None = None) -> ReadPrompts:
    """Read prompts of similar lengths, once; row by row `behind` what was read before them, which is used up."""
    from transformers import DynamicCache

    ids, mask = _padded(prompts, device_of(model), side="left")
    if behind:
        mask = torch.cat([behind.mask, mask], dim=1)
    # Without the model's configuration the cache keeps everything; a sliding window is in the mask all the same.
    cache = behind.cache if behind else DynamicCache()
    positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    found = backbone_of(model)(**inputs, past_key_values=cache, use_cache=True)
    return ReadPrompts(found.past_key_values, mask, found.last_hidden_state[:, -1])


def continued_states(model: Any, read: ReadPrompts, rows: Sequence[int], texts: Sequence[TokenIds]) -> Tensor:
    """Hidden states [N, H] at every token of the texts, one after the other; text i continues the prompt rows[i].

    What was read is used up: its cache is then that of the texts.
    """
    chosen = torch.tensor(rows, device=device_of(model))
    ids, mask = _padded(texts, device_of(model), side="right")
    read.cache.batch_select_indices(chosen)
    positions = read.lengths[chosen, None] + torch.arange(ids.shape[1], device=device_of(model))
    seen = torch.cat([read.mask[chosen], mask], dim=1)
    inputs = {"input_ids": ids, "attention_mask": seen, "position_ids": positions}
    states_BTH = backbone_of(model)(**inputs, past_key_values=read.cache, use_cache=True).last_hidden_state
    return states_BTH[mask.bool()]


def whole_states(model: Any, prompts: Sequence[TokenIds], texts: Sequence[TokenIds]) -> Tensor:
    """The same hidden states by reading prompt and text together, and before them that at each prompt's end.

    [N, H]: of every row the last position of the prompt, then those of its text.
    """
    ids, mask = _padded(
        [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)], device_of(model), "right"
    )
    states_BTH = backbone_of(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    first = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device_of(model))[:, None]
    return states_BTH[mask.bool() & (torch.arange(ids.shape[1], device=device_of(model)) >= first)]


def continues_cleanly(model: Any) -> bool:
    """Whether continuing a prompt that was read gives the same as reading all of it together.

    Recurrent models keep a state that cannot be padded, and some positions depend on the length of the whole text.
    """
    inner = causal_lm(model)
    if getattr(inner, "_is_stateful", False) or not inner._supports_default_dynamic_cache():
        return False
    if alone_beyond(inner.config) is not None:
        return False
    draw = torch.Generator().manual_seed(0)
    prompts, texts = ([torch.randint(vocabulary_of(model), (n,), generator=draw).tolist() for n in of] for of in _PROBE)
    with only_reading(model), reading_autocast(model):
        read = read_prompts(model, prompts)
        kept = getattr(read.cache, "get_seq_length", lambda: 0)()
        if kept != max(map(len, prompts)):
            return False
        last = read.last_states
        parts = continued_states(model, read, range(len(texts)), texts)
        pairs = zip(last.split(1), parts.split([len(text) for text in texts]), strict=True)
        ours = torch.cat([part for pair in pairs for part in pair])
        theirs = whole_states(model, prompts, texts)
    return is_close(ours, theirs, theirs.dtype)


_PROBE = ((5, 9), (4, 2))
"""Lengths of the prompts and of what continues them: unequal, so that both are padded."""


def _padded(rows: Sequence[TokenIds], device: Any, side: str) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] and their mask."""
    tensors = [torch.tensor(list(row), dtype=torch.int64) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)
