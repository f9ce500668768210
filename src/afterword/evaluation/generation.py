"""What a model writes, greedily or by sampling, without disturbing a training run around it.

The one rule: what is written for a prompt depends on the model, the prompt, its place in the list and the
seed; not on the batch it was written in (up to the rounding of the arithmetic), nor on any global random
state, and nothing of the model or the tokenizer is different afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

if TYPE_CHECKING:
    from torch import Tensor

TokenIds = Sequence[int]
# From the rows of a batch, and its padded prompt length, to what is done to its logits.
_ProcessorsFor = Callable[[list[int], int], LogitsProcessorList]


def generate_greedy(
    model: Any,
    tokenizer: Any,
    prompts_ids: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_tokens: int = 8192,
    extra_eos_ids: TokenIds = (),
) -> list[list[int]]:
    """The most probable next token, again and again: one completion for each prompt, in their order.

    A completion has no prompt in it and reaches up to and including the token that ended it: an EOS of the
    model or tokenizer, or one of `extra_eos_ids`. `batch_tokens` bounds rows × (longest prompt + new tokens).
    Sampling settings or penalties that the model's own generation_config carries are not applied.
    """
    config = _decoding(model, tokenizer, max_new_tokens, 0, extra_eos_ids)
    return _generate(model, prompts_ids, config, batch_tokens, lambda rows, width: LogitsProcessorList())


def sample(
    model: Any,
    tokenizer: Any,
    prompts_ids: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    min_new_tokens: int = 0,
    batch_tokens: int = 8192,
    extra_eos_ids: TokenIds = (),
) -> list[list[int]]:
    """One completion drawn for each prompt; otherwise as `generate_greedy`.

    Prompt i is drawn with random numbers of its own, made from (seed, i). Before `min_new_tokens` nothing
    can end a completion.
    """
    assert temperature > 0
    assert 0 < top_p <= 1
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(temperature))]
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    draws = [np.random.default_rng((seed, i)).random(max_new_tokens) for i in range(len(prompts_ids))]

    def processors(rows: list[int], width: int) -> LogitsProcessorList:
        drawn = torch.from_numpy(np.stack([draws[row] for row in rows]))
        return LogitsProcessorList([*warpers, _DrawnToken(drawn, width)])

    config = _decoding(model, tokenizer, max_new_tokens, min_new_tokens, extra_eos_ids)
    return _generate(model, prompts_ids, config, batch_tokens, processors)


class _DrawnToken(LogitsProcessor):
    """Leaves one token possible, where the cumulated probability passes a number drawn in advance.

    generate() would draw the rows of a batch from one global stream, so that a text would depend on its
    neighbours. Drawn in advance, greedy decoding of what this leaves *is* sampling.
    """

    def __init__(self, draws: Tensor, prompt_width: int):
        self.draws = draws  # [rows, max_new_tokens] float64 in [0, 1)
        self.prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.prompt_width
        # On the CPU: float64 is unknown to MPS, and CUDA has no deterministic cumulative sum.
        cumulated = scores.float().softmax(-1).cpu().double().cumsum(-1)
        draw = self.draws[:, step : step + 1] * cumulated[:, -1:]
        # right=True passes over tokens of probability zero, where the sum does not grow.
        token = torch.searchsorted(cumulated, draw, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token.to(scores.device), 0.0)


def _decoding(
    model: Any, tokenizer: Any, max_new_tokens: int, min_new_tokens: int, extra_eos_ids: TokenIds
) -> GenerationConfig:
    ends = sorted({*_eos_ids(model, tokenizer), *extra_eos_ids})
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens or None,
        eos_token_id=ends or None,
        # Masked in front of a prompt, and cut off behind an end; without any end nothing is cut off.
        pad_token_id=ends[0] if ends else 0,
        use_cache=True,
    )


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    # Chat models name several in their generation_config: the end of a turn and the end of a text.
    named = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return {int(token) for token in ids if token is not None}


def _generate(
    model: Any, prompts: Sequence[TokenIds], config: GenerationConfig, batch_tokens: int, processors: _ProcessorsFor
) -> list[list[int]]:
    assert all(len(prompt) for prompt in prompts), "a prompt has at least one token"
    lengths = [len(prompt) for prompt in prompts]
    completions: list[list[int]] = [[] for _ in prompts]
    with _undisturbed(model):
        for rows in _batches(lengths, config.max_new_tokens or 0, batch_tokens):
            input_ids, attention_mask = _left_padded([prompts[row] for row in rows], config.pad_token_id)
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                generation_config=config,
                logits_processor=processors(rows, input_ids.shape[1]),
            )
            for row, written in zip(rows, output[:, input_ids.shape[1] :].tolist(), strict=True):
                completions[row] = _up_to_end(written, config.eos_token_id or ())
    return completions


def _batches(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices, longest prompts first: little padding, and what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        rows = max(1, batch_tokens // (lengths[order[0]] + new_tokens))
        yield order[:rows]
        order = order[rows:]


def _left_padded(prompts: Sequence[TokenIds], pad_id: Any) -> tuple[Tensor, Tensor]:
    # On the left, so that every row goes on from its own last token.
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids, attention_mask


def _up_to_end(token_ids: list[int], ends: TokenIds) -> list[int]:
    first = next((i for i, token in enumerate(token_ids) if token in ends), len(token_ids))
    return token_ids[: first + 1]


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Evaluation mode and a blank generation_config inside; outside, everything as it was.

    The mode is restored module by module, since a trained model may hold frozen parts in evaluation mode.
    generate() fills whatever a given GenerationConfig leaves open from the model's own (repetition_penalty,
    for one), so that one is put aside; adapters keep theirs on the model they wrap.
    """
    modes = [(module, module.training) for module in model.modules()]
    configs = [(m, m.generation_config) for m in model.modules() if "generation_config" in vars(m)]
    try:
        model.eval()
        for module, _ in configs:
            module.generation_config = GenerationConfig()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, config in configs:
            module.generation_config = config
