"""An adapter that was trained before and goes on: the same one, on the same base, in one file again.

The one rule: the model as it was given is base and adapter together. It is what the teacher is, and what anything that
is lost is measured against; not the base below.
"""

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from afterword.errors import ConfigError
from afterword.models.adapters import adapter_on
from afterword.models.lora import LoraSettings, refuse_unsafe_adapters

_GIVEN = "adapter_as_given"


def go_on(base: Any, folder: str) -> Any:
    """The adapter of a folder on its base, to be trained further. ConfigError for one that cannot be."""
    adapted = adapter_on(lambda _: base, folder, trainable=True)
    configuration = adapted.peft_config["default"]
    if getattr(configuration.peft_type, "value", None) != "LORA":
        problem = f"use_peft: the adapter {folder!r} is no LoRA ({configuration.peft_type})"
        raise ConfigError(f"{problem}. Merge it, and give the merged model.")
    if whole := configuration.modules_to_save:
        problem = f"use_peft: the adapter {folder!r} has modules that were trained whole ({', '.join(sorted(whole))})"
        remedy = "Give the merged model (merged/ of a run with merge_adapter), on which a new adapter is trained"
        raise ConfigError(f"{problem}, and cannot go on. {remedy}.")
    refuse_unsafe_adapters(adapted)
    setattr(adapted, _GIVEN, {name: value.detach().clone() for name, value in _trained(adapted)})
    return adapted


def goes_on(model: Any) -> bool:
    """Whether a model's adapter was trained before."""
    return getattr(model, _GIVEN, None) is not None


def settings_of_adapter(folder: str) -> LoraSettings:
    """What the adapter of a folder was made with."""
    import peft

    found: Any = peft.PeftConfig.from_pretrained(folder)
    targets = found.target_modules
    return LoraSettings(
        r=found.r,
        alpha=found.lora_alpha,
        dropout=found.lora_dropout,
        target_modules=targets if isinstance(targets, str) else tuple(sorted(targets or ())),
        bias=found.bias,
        use_dora=found.use_dora,
    )


@contextlib.contextmanager
def as_given(model: Any) -> Generator[None]:
    """While the block runs, a model with an adapter is the one that was given: without it, or with it as it was then.

    No gradient is taken within.
    """
    given: Mapping[str, Tensor] | None = getattr(model, _GIVEN, None)
    if given is None:
        with model.disable_adapter():
            yield
        return
    now = dict(_trained(model))
    kept = {name: weight.data for name, weight in now.items()}
    for name, weight in now.items():
        # Another tensor in its place, rather than other values: what a backward pass will want of it stays.
        weight.data = given[name].to(weight.device)
    try:
        yield
    finally:
        for name, weight in now.items():
            weight.data = kept[name]


def _trained(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
