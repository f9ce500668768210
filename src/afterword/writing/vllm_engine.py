"""vLLM writes, where it is installed: the model that is taught, or another one."""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from afterword.distributed import device_type
from afterword.errors import ConfigError
from afterword.models import (
    evaluation_dtype,
    free_memory,
    load_config,
    load_model,
    model_folder,
    position_limit,
    weights_fingerprint,
)
from afterword.models.generation import end_of_turn, ends_of
from afterword.types import Request, Written
from afterword.writing.replies import prompt_of, prompt_tokens, reply_of, room_of, seed_of, unmixed

_PER_BATCH = 512
"""Requests that the engine is given at once: it packs them itself, and keeps what prompts begin with alike."""
_UNLESS_SET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    # The output of a command is its own.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    # vLLM reports by network how it is used.
    "VLLM_NO_USAGE_STATS": "1",
    # An engine in a process of its own stays for ever, memory and all, where this process is killed.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
"""Of the environment, as vLLM reads it when it is imported."""


@dataclass(frozen=True, eq=False)
class VllmGenerator:
    """A model that vLLM runs for this process. Its texts are drawn with its own random numbers, seeded per request."""

    model_name: str
    """A folder, or anything else that a model is called by."""
    tokenizer: Any

    @property
    def name(self) -> str:
        """The content of the model's weights, and what vLLM holds them in; no version of vLLM."""
        return f"vllm {self._read[0]} {self._dtype}"

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
        """The texts of one batch, each as soon as it ends: they end one by one, and what is there is not lost."""
        limit = position_limit(load_config(self.model_name))
        prompts = [prompt_tokens(self.tokenizer, request) for request in requests]
        rooms = [room_of(request, prompt, limit) for request, prompt in zip(requests, prompts, strict=True)]
        if without := {n: (Written("", ended=False), 0) for n, room in enumerate(rooms) if not room}:
            advance(len(without))
            yield without
        fitting = [n for n, room in enumerate(rooms) if room]
        given = self._llm.enqueue(
            [{"prompt_token_ids": prompts[n]} for n in fitting],
            [self._sampling(requests[n], rooms[n]) for n in fitting],
            use_tqdm=False,
        )
        # A request is called 12-8f3a52c1 where it goes in, and 12 where its text comes out.
        numbers = {name.partition("-")[0]: n for name, n in zip(given, fitting, strict=True)}
        engine = self._llm.llm_engine
        while engine.has_unfinished_requests():
            if found := {numbers[each.request_id]: each for each in engine.step() if each.finished}:
                advance(len(found))
                yield {n: self._text(requests[n], each) for n, each in found.items()}

    def close(self) -> None:
        """End the processes of the engine and give up their memory, where they were begun."""
        if "_llm" in self.__dict__:
            self._llm.llm_engine.engine_core.shutdown()
            del self.__dict__["_llm"]
            free_memory()

    def _text(self, request: Request, found: Any) -> tuple[Written, int]:
        ids = list[int](found.outputs[0].token_ids)
        return reply_of(self.tokenizer, request, ids, self._read[1]), len(ids)

    @cached_property
    def _read(self) -> tuple[str, frozenset[int]]:
        """The fingerprint of the weights, and the tokens that end a text."""
        # The same as of a model in this process: read for it, and given up before the engine reads it.
        model = load_model(self.model_name)
        found = weights_fingerprint(model), ends_of(model, self.tokenizer, end_of_turn(self.tokenizer))
        del model
        free_memory()
        return found

    @cached_property
    def _dtype(self) -> str:
        # By itself vLLM would round a model that is stored in float32.
        return str(evaluation_dtype([self.model_name])).removeprefix("torch.")

    @cached_property
    def _vllm(self) -> Any:
        for name, value in _UNLESS_SET.items():
            os.environ.setdefault(name, value)
        try:
            return importlib.import_module("vllm")
        except ImportError as error:
            problem = f"vllm cannot be imported here ({error})"
            raise ConfigError(f"generator: {problem}. Install it, or leave generator out.") from error

    @cached_property
    def _llm(self) -> Any:
        on_cpu = device_type() == "cpu"
        return self._vllm.LLM(
            model=model_folder(self.model_name),
            dtype=self._dtype,
            enable_prefix_caching=True,
            use_tqdm_on_load=False,
            # What holds the weights is a process that ends with this one, and whose memory is free when it is ended.
            distributed_executor_backend="mp",
            # On a CPU it would compile for minutes before the first token, each time that it has not done so yet.
            enforce_eager=on_cpu,
            # A prompt that is read in parts sets a seeded draw back, which random numbers of a CPU cannot.
            enable_chunked_prefill=not on_cpu,
        )

    def _sampling(self, request: Request, room: int) -> Any:
        sampling = request.sampling
        return self._vllm.SamplingParams(
            max_tokens=room,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed_of(self.tokenizer, request) % 2**31,
            stop_token_ids=sorted(self._read[1]),
            detokenize=False,
        )
