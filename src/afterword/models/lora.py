"""Adapters by peft, and the two kinds that would make the teacher another model than M0."""

import warnings
from dataclasses import dataclass
from typing import Any

from afterword.errors import ConfigError, nearest
from afterword.models.backbone import causal_lm
from afterword.models.shapes import shape_of

ADAPTER_CONFIG = "adapter_config.json"
LORA_LEARNING_RATE = 5e-5
"""The authors' rate under LoRA; the method's own default is for full fine-tuning."""


_OF_PEFT = (ValueError, RuntimeError, AttributeError, TypeError, IndexError, KeyError)
"""What peft and a model with its adapters raise where they do not belong together."""
STATE_SPACES = ("mamba", "mamba2", "falcon_h1", "falcon_mamba", "nemotron_h")
KERNELS = ("out_proj", "conv1d")
"""Layers of state-space models whose weights peft refuses to adapt."""
_PROBE_TOKENS = 9


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """LoRA as the authors of DiSC use it with every method (arXiv:2602.16093): METHODS §3."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.1
    target_modules: str | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    use_dora: bool = False


def with_lora(model: Any, settings: LoraSettings, seed: int) -> Any:
    """The model wrapped by peft with fresh adapters. Unsafe or unknown ones are a ConfigError."""
    if problems := _bias_problems([settings.bias]) + _unknown_modules(model, settings.modules_to_save):
        raise ConfigError(problems)
    adapted = _adapted(model, settings, seed, left_out := _without_adapter(model, settings))
    refuse_unsafe_adapters(adapted)
    try:
        _try(adapted)
    except _OF_PEFT as error:
        others = _of_other_kinds(adapted)
        if settings.target_modules != "all-linear" or not others:
            raise _unfit(adapted, settings, error) from error
        adapted = _adapted(adapted.unload(), settings, seed, [*left_out, *others])
        try:
            _try(adapted)
        except _OF_PEFT as error:
            raise _unfit(adapted, settings, error) from error
        left_out = [*left_out, *others]
    if left_out:
        kind = causal_lm(model).config.model_type
        warnings.warn(f"{kind}: no adapter on {', '.join(left_out)}, which are no plain layers.", stacklevel=2)
    return adapted


def _adapted(model: Any, settings: LoraSettings, seed: int, left_out: list[str]) -> Any:
    import peft
    import torch

    modules, whole = settings.target_modules, list(settings.modules_to_save)
    targets = modules if isinstance(modules, str) else list(modules)
    sizes = {"r": settings.r, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    places = {"target_modules": targets, "modules_to_save": whole or None, "use_dora": settings.use_dora}
    places["exclude_modules"] = left_out or None
    # Those that are used, not all that there are: each would be given a context, by every process.
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    if torch.cuda.is_initialized():
        devices.add(torch.device("cuda", torch.cuda.current_device()))
    with torch.random.fork_rng(list(devices)):
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **sizes, **places))
        except _OF_PEFT as error:
            raise _unfit(model, settings, error) from error


def _of_other_kinds(adapted: Any) -> list[str]:
    """Names of the layers that are linear and something more (routers, groups)."""
    from torch import nn

    parts = ((name, getattr(part, "base_layer", None)) for name, part in adapted.named_modules())
    return sorted({_last(name) for name, base in parts if isinstance(base, nn.Linear) and type(base) is not nn.Linear})


def _last(name: str) -> str:
    """What a module is called in its block."""
    return name.removesuffix(".base_layer").rpartition(".")[2]


def _without_adapter(model: Any, settings: LoraSettings) -> list[str]:
    """Of all linear layers, those that peft puts no adapter on, because a kernel takes their weights past it."""
    kind = str(causal_lm(model).config.model_type)
    return list(KERNELS) if settings.target_modules == "all-linear" and kind in STATE_SPACES else []


def _try(adapted: Any) -> None:
    """Read through fresh adapters and look whether they can be merged; whatever peft raises where not."""
    import torch
    from peft.tuners.lora import LoraLayer

    from afterword.models.backbone import trained_states
    from afterword.models.checks import probe, reading_autocast

    was = adapted.training
    with torch.enable_grad(), reading_autocast(adapted):
        trained_states(adapted.eval(), probe(adapted, _PROBE_TOKENS)).float().sum().backward()
    adapted.zero_grad()
    adapted.train(was)
    parts: list[Any] = [part for part in adapted.modules() if isinstance(part, LoraLayer)]
    for part in parts:
        base = getattr(part, "base_layer", None)
        if isinstance(base, torch.nn.Linear) and "default" in part.lora_B:
            update = (part.lora_B["default"].weight.shape[0], part.lora_A["default"].weight.shape[1])
            if update != tuple(shape_of(base.weight)):
                raise ValueError(f"the update of a {type(base).__name__} has another shape than its weight")
    _refuse_unread(adapted)


def _refuse_unread(adapted: Any) -> None:
    """ValueError where peft does not find an adapter's weights again by the names that it saves them under."""
    import peft
    import torch

    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trained.items()}
    # Not the embedding below an adapter of its own, which peft would save beside it.
    saved = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    others = {name: value + 1 for name, value in saved.items()}
    peft.set_peft_model_state_dict(adapted, others)
    lost = [name for name, value in trained.items() if torch.equal(value, before[name])]
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(before[name])
    if lost:
        layer = lost[0].partition(".lora_")[0].removeprefix("base_model.model.")
        raise ValueError(f"peft does not find the adapter of {layer} again once it is saved")


def _unfit(model: Any, settings: LoraSettings, error: Exception) -> ConfigError:
    """What is said where peft's adapters do not work on a model."""
    kind, first = causal_lm(model).config.model_type, str(error).strip().splitlines()[0] if str(error).strip() else ""
    if settings.dropout and "lora_dropout" in first:
        problem = f"lora_dropout: {settings.dropout} cannot be used with the experts of a {kind} model"
        return ConfigError(f"{problem}, whose weights are no layers. Give --lora-dropout 0.")
    problem = f"lora_target_modules: {settings.target_modules!r} does not fit a {kind} model ({first})"
    parts = ((name, part) for name, part in model.named_modules() if ".lora_" not in name)
    names = sorted({_last(name) for name, part in parts if _is_linear(part)} - {"lm_head"})
    there = [name for name in names if not name.isdigit()][:8]
    every = "" if settings.target_modules == "all-linear" else "; or all-linear"
    return ConfigError(f"{problem}. Name some of its linear layers: {', '.join(there)}{every}; or train all weights.")


def _is_linear(part: Any) -> bool:
    from torch import nn

    return type(part) is nn.Linear


def refuse_unsafe_adapters(model: Any) -> None:
    """Raise ConfigError for adapters under which "adapter off" or "hidden states times head" is not M0."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    problems = _bias_problems([getattr(config, "bias", "none") for config in model.peft_config.values()])
    if isinstance(causal_lm(model).get_output_embeddings(), BaseTunerLayer):
        rule = "an adapter on the output head is left out when hidden states are multiplied with the head's weight"
        remedy = "Remove the head from the targets, or train it whole through lora_modules_to_save."
        problems.append(f"lora_target_modules: {rule}. {remedy}")
    if problems:
        raise ConfigError(problems)


def _bias_problems(biases: list[str]) -> list[str]:
    why = "trains biases that stay on when the adapter is off, so the teacher would not be the model as it was given"
    return [f"lora_bias: {bias!r} {why}. Use 'none'." for bias in biases if bias != "none"]


def _unknown_modules(model: Any, wanted: tuple[str, ...]) -> list[str]:
    # peft passes over them in silence. It takes any module whose path ends so.
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    known = sorted({name for path in paths if not (name := path.rpartition(".")[2]).isdigit()} - {""})
    missing = [name for name in wanted if not any(path.endswith(name) for path in paths)]
    there = f"It has {', '.join(known)}."
    return [f"lora_modules_to_save: the model has no {name!r}. {nearest(name, known)}{there}" for name in missing]
