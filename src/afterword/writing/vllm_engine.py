"""vLLM writes, where it is installed: the model that is taught, or another one."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from afterword.errors import ConfigError
from afterword.models import free_memory, load_config, load_model, model_folder, position_limit, weights_fingerprint
from afterword.models.generation import end_of_turn
from afterword.types import Request, Written
from afterword.writing.replies import prompt_of, prompt_tokens, reply_of, room_of, seed_of, unmixed

_PER_BATCH = 512
"""Requests that the engine is given at once: it packs them itself, and keeps what prompts begin with alike."""


@dataclass(frozen=True, eq=False)
class VllmGenerator:
    """A model that vLLM runs in this process. Its texts are drawn with its own random numbers, seeded per request."""

    model_name: str
    """A folder, or anything else that a model is called by."""
    tokenizer: Any

    @property
    def name(self) -> str:
        """The content of the model's weights; no version of vLLM."""
        return self._name

    def prompt_of(self, request: Request) -> str:
        """What the model reads: the turns by its template, or the text. ConfigError for two conversations."""
        if request.other_turns:
            raise unmixed("vllm")
        return prompt_of(self.tokenizer, request)

    def tokens(self, requests: Sequence[Request]) -> int:
        """Of all prompts together."""
        return sum(len(prompt_tokens(self.tokenizer, request)) for request in requests)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """In their order."""
        numbers = list(range(len(requests)))
        return [numbers[at : at + _PER_BATCH] for at in range(0, len(numbers), _PER_BATCH)]

    def write(
        self, requests: Sequence[Request], advance: Callable[[int], object]
    ) -> Iterator[dict[int, tuple[Written, int]]]:
        """The texts of one batch, together."""
        ends = [self.tokenizer.eos_token_id, *end_of_turn(self.tokenizer)]
        limit = position_limit(load_config(self.model_name))
        prompts = [prompt_tokens(self.tokenizer, request) for request in requests]
        rooms = [room_of(request, prompt, limit) for request, prompt in zip(requests, prompts, strict=True)]
        fitting = [n for n, room in enumerate(rooms) if room]
        found = self._engine.generate(
            [{"prompt_token_ids": prompts[n]} for n in fitting],
            [self._sampling(requests[n], rooms[n], ends) for n in fitting],
            use_tqdm=False,
        )
        done = {n: (Written("", ended=False), 0) for n, room in enumerate(rooms) if not room}
        for n, each in zip(fitting, found, strict=True):
            ids = list(each.outputs[0].token_ids)
            reply = reply_of(self.tokenizer, requests[n], ids, [end for end in ends if end is not None])
            done[n] = (Written(reply.text, ended=each.outputs[0].finish_reason == "stop"), len(ids))
        advance(len(done))
        yield done

    @cached_property
    def _name(self) -> str:
        # By the same content as the model in this process: read for it, and given up before the engine reads it.
        found = f"vllm {weights_fingerprint(load_model(self.model_name))}"
        free_memory()
        return found

    @cached_property
    def _vllm(self) -> Any:
        try:
            return importlib.import_module("vllm")
        except ImportError as error:
            problem = f"vllm cannot be imported here ({error})"
            raise ConfigError(f"generator: {problem}. Install it, or leave generator out.") from error

    @cached_property
    def _engine(self) -> Any:
        return self._vllm.LLM(model=model_folder(self.model_name), enable_prefix_caching=True)

    def _sampling(self, request: Request, room: int, ends: Sequence[int]) -> Any:
        sampling = request.sampling
        return self._vllm.SamplingParams(
            max_tokens=room,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed_of(self.tokenizer, request) % 2**31,
            stop_token_ids=[end for end in ends if end is not None],
        )
