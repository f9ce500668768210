"""The model that the lm-evaluation-harness asks: the one in memory, or vLLM's.

The harness reads a prompt once for each of its choices. In memory a prompt is read once for all of them, in batches by
tokens. The one rule: every likelihood is what the harness itself finds, up to the rounding of the arithmetic.
"""

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch

from afterword.errors import ConfigError
from afterword.evaluation.choices import likelihoods
from afterword.models import adapter_folder, causal_lm, free_memory, is_adapter, model_folder
from afterword.progress import Progress

THINK_END = "</think>"
"""What ends the thoughts of the models whose chat templates can be told to think."""
_ON_A_GPU = 8
"""How many times the tokens of a micro-batch are read at once there: only likelihoods are kept of them."""
_WRITTEN_AT_ONCE = {"cpu": 8, "cuda": 32}
_Request = tuple[Any, list[int], list[int]]
"""What a request is called by, its prompt, and what follows it, in tokens."""


def in_memory(
    model: Any, tokenizer: Any, *, batch_size: int | Literal["auto"] = "auto", batch_tokens: int = 4096
) -> Any:
    """The model as the harness asks it, in the mode and precision that it is in.

    `batch_size` is in texts; `auto` reads by `batch_tokens`. Texts may be as long as the model itself reads.
    """
    inner = causal_lm(model)
    device = inner.device.type
    written = _WRITTEN_AT_ONCE.get(device, 8) if batch_size == "auto" else batch_size
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)  # It warns of every model that it has not loaded itself.
    try:
        harness = _in_memory_class()(pretrained=inner, tokenizer=tokenizer, batch_size=written)
    finally:
        log.setLevel(level)
    harness.asked_model = model
    harness.texts_at_once = None if batch_size == "auto" else batch_size
    harness.tokens_at_once = batch_tokens * (1 if device == "cpu" else _ON_A_GPU)
    return harness


@cache
def _in_memory_class() -> Any:
    """Made when it is needed: importing the harness takes seconds."""
    from lm_eval.models.huggingface import HFLM

    harness_model: Any = HFLM  # Its methods are decorated, and come without their types.

    class InMemory(harness_model):
        """The harness's own model, but for how likelihoods are read and what happens when memory is short."""

        asked_model: Any
        texts_at_once: int | None
        tokens_at_once: int

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            # Tokenising takes no time that a bar of its own would be for.
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
        ) -> list[tuple[float, bool]]:
            pairs = [within(prompt, text, int(self.max_length)) for _, prompt, text in requests]
            longest = max((len(prompt) + len(text) for prompt, text in pairs), default=0)
            tokens = self.tokens_at_once if self.texts_at_once is None else self.texts_at_once * longest
            return read_once(self.asked_model, pairs, tokens)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            """As the harness's; where memory is short, again with half as many texts at once."""
            while True:
                try:
                    return super().generate_until(requests, disable_tqdm=disable_tqdm)
                except torch.OutOfMemoryError:
                    if self.batch_size_per_gpu == 1:
                        raise
                free_memory()
                self.batch_size_per_gpu = max(1, self.batch_size_per_gpu // 2)

    return InMemory


def within(prompt: Sequence[int], text: Sequence[int], max_length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and text, cut from the left as the harness cuts what the model cannot read.

    >>> within([1, 2, 3], [4, 5], 3)  # the last token is predicted and not read
    ((2, 3), (4, 5))
    """
    kept = max_length + 1 - len(text)
    return tuple(prompt[-kept:]) if kept else (), tuple(text)


def read_once(
    model: Any, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], batch_tokens: int
) -> list[tuple[float, bool]]:
    """The log-probability of every text behind its prompt, and whether it is the likeliest; prompts are read once."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for place, (prompt, _) in enumerate(pairs):
        by_prompt.setdefault(prompt, []).append(place)
    asked = [(prompt, [pairs[place][1] for place in places]) for prompt, places in by_prompt.items()]
    with Progress("prompts", len(asked)) as progress:
        found = likelihoods(model, asked, batch_tokens=batch_tokens, greedy=True, advance=progress.advance)
    answers: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
    for places, own in zip(by_prompt.values(), found, strict=True):
        for place, total, greedy in zip(places, own.logprobs_nats.tolist(), own.greedy.tolist(), strict=True):
            answers[place] = (total, greedy)
    return answers


def refuse_missing_vllm() -> None:
    """ConfigError where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        problem = "tasks_backend: vllm is not installed here"
        raise ConfigError(f"{problem}. Install it: pip install vllm (it needs a GPU); or leave tasks_backend out.")


def by_vllm(name: str, *, enable_thinking: bool | None) -> Any:
    """The model or adapter of a name, run by vLLM as the harness runs it. ConfigError where it is not installed."""
    refuse_missing_vllm()
    from lm_eval.api.registry import get_model

    folder = model_folder(name)
    about: dict[str, Any] = {"pretrained": folder, "tokenizer": folder}
    if is_adapter(folder):
        adapter, base = adapter_folder(folder)
        about |= {"pretrained": base, "lora_local_path": adapter, "max_lora_rank": _MOST_LORA_RANK}
    if enable_thinking:
        about["think_end_token"] = THINK_END
    vllm_model: Any = get_model("vllm")
    return vllm_model(**about, batch_size="auto", enable_thinking=enable_thinking)


_MOST_LORA_RANK = 512
"""The most that vLLM has kernels for."""
