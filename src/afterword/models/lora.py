"""Adapters by peft, and the two kinds that would make the teacher another model than M0."""

from dataclasses import dataclass
from typing import Any

from afterword.errors import ConfigError, nearest
from afterword.models.backbone import causal_lm

ADAPTER_CONFIG = "adapter_config.json"
LORA_LEARNING_RATE = 5e-5
"""The authors' rate under LoRA; the method's own default is for full fine-tuning."""


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
    import peft
    import torch

    if problems := _bias_problems([settings.bias]) + _unknown_modules(model, settings.modules_to_save):
        raise ConfigError(problems)
    modules, whole = settings.target_modules, list(settings.modules_to_save)
    targets = modules if isinstance(modules, str) else list(modules)
    sizes = {"r": settings.r, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
    places = {"target_modules": targets, "modules_to_save": whole or None, "use_dora": settings.use_dora}
    # Those that are used, not all that there are: each would be given a context, by every process.
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    if torch.cuda.is_initialized():
        devices.add(torch.device("cuda", torch.cuda.current_device()))
    with torch.random.fork_rng(list(devices)):
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **sizes, **places))
        except ValueError as error:
            problem = f"lora_target_modules: {modules!r} does not fit this model. {str(error).splitlines()[0]}"
            raise ConfigError(f"{problem} Use all-linear, or name modules that the model has.") from error
    refuse_unsafe_adapters(adapted)
    return adapted


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
