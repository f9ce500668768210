"""The two models of an evaluation in memory: together where they fit, else one at a time.

The one rule: what is measured is the same either way; only when a model is loaded differs.
"""

import gc
from collections.abc import Sequence
from functools import partial
from typing import Any

import psutil
import torch

from afterword.data import special_tokens
from afterword.distributed import device_type, process_count
from afterword.errors import ConfigError
from afterword.evaluation.measure import Models
from afterword.models import (
    base_of_adapter,
    context_length,
    evaluation_dtype,
    free_memory,
    is_adapter,
    load_adapted,
    load_config,
    load_tokenizer,
    parameter_count,
    refuse_foreign_tokenizer,
)
from afterword.settings.evaluate import EvaluateSettings

_WEIGHTS_SHARE = 0.8
"""Of the memory that is free: the rest is for what is computed."""


class ModelsInTurns(Models):
    """Two models of which one is in memory: whichever was asked for last. Each is loaded anew for its turn."""

    def __init__(self, load: Any, names: tuple[str, str], *about: Any):
        self.__dict__ |= dict(zip(("tokenizer", "special", "max_length", "micro_batch_tokens"), about, strict=True))
        self.__dict__ |= {"_load": load, "_names": names, "_there": {}}

    @property
    def reference(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M0, in memory from now on."""
        return self._turn_of(0)

    @property
    def adapted(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """θ, in memory from now on."""
        return self._turn_of(1)

    @property
    def are_two(self) -> bool:
        """Always."""
        return True

    @property
    def in_turns(self) -> bool:
        """Always."""
        return True

    def _turn_of(self, number: int) -> Any:
        there: dict[int, Any] = self.__dict__["_there"]
        if number not in there:
            # First of all the other one goes.
            there.clear()
            gc.collect()
            free_memory()
            there[number] = self.__dict__["_load"](self.__dict__["_names"][number])
        return there[number]


def load_models(name: str, settings: EvaluateSettings) -> Models:
    """Both models in evaluation mode, on the GPU where there is one; as `models_at_once` and `device_map` have it."""
    if settings.device_map and process_count() > 1:
        problem = f"device_map: {settings.device_map} spreads a model over all GPUs, and each process would do so"
        raise ConfigError(f"{problem}. Start it without torchrun, or leave device_map out.")
    names = tuple(path for path in (settings.reference, name) if path)
    dtype, tokenizer = evaluation_dtype(list(names), settings.precision), load_tokenizer(name)
    load = partial(_loaded, tokenizer=tokenizer, of=name, dtype=dtype, device_map=settings.device_map)
    length = context_length(load_config(names[-1]), settings.max_length)
    about = (tokenizer, special_tokens(tokenizer, "auto", "document"), length, settings.micro_batch_tokens)
    if len(names) == 2 and _take_turns(names, dtype, settings):
        return ModelsInTurns(load, (names[0], names[1]), *about)
    loaded = [load(each) for each in names]
    return Models(loaded[0], loaded[1] if len(loaded) == 2 else None, *about)


def _loaded(name: str, *, tokenizer: Any, of: str, dtype: torch.dtype, device_map: str | None) -> Any:
    model = load_adapted(name, dtype=dtype, device_map=device_map).eval()
    refuse_foreign_tokenizer(tokenizer, model, of)
    # One that is spread stays where it was put.
    return model if device_map else model.to(device_type())


def _take_turns(names: Sequence[str], dtype: torch.dtype, settings: EvaluateSettings) -> bool:
    if settings.models_at_once != "auto":
        return settings.models_at_once == "one"
    needed = sum(weights_bytes(name, dtype) for name in names)
    return needed > _WEIGHTS_SHARE * _free_bytes(spread=settings.device_map is not None)


def weights_bytes(name: str, dtype: torch.dtype) -> int:
    """What a model's weights take in memory; of an adapter those of its base, beside which it is small."""
    while is_adapter(name):
        name = base_of_adapter(name)
    return parameter_count(name) * dtype.itemsize


def _free_bytes(*, spread: bool) -> int:
    """Where models are loaded: on this process's GPU, or on all and in main memory, or in main memory alone."""
    if device_type() == "cpu":
        return psutil.virtual_memory().available // process_count()
    gpus = range(torch.cuda.device_count()) if spread else [torch.cuda.current_device()]
    return sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
