"""Adapters by peft, and the two kinds that would make the teacher another model than M0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from afterword.errors import ConfigError
from afterword.models.backbone import causal_lm


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


LORA_LEARNING_RATE = 5e-5
"""The authors' rate under LoRA; the method's own default is for full fine-tuning."""


def with_lora(model: Any, settings: LoraSettings, seed: int) -> Any:
    """The model wrapped by peft with fresh adapters. Unsafe adapters are a ConfigError."""
    import peft
    import torch

    modules = settings.target_modules
    if settings.bias != "none":
        raise ConfigError(_unsafe_bias(settings.bias))
    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        modules_to_save=list(settings.modules_to_save) or None,
        bias=settings.bias,  # pyright: ignore[reportArgumentType]
        use_dora=settings.use_dora,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(
                f"lora_target_modules: {modules!r} does not fit this model. {str(error).splitlines()[0]} "
                "Use all-linear, or name modules that the model has."
            ) from error
    refuse_unsafe_adapters(adapted)
    return adapted


def refuse_unsafe_adapters(model: Any) -> None:
    """Raise ConfigError for adapters under which "adapter off" or "hidden states times head" is not M0."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    problems = [
        _unsafe_bias(config.bias) for config in model.peft_config.values() if getattr(config, "bias", "none") != "none"
    ]
    if isinstance(causal_lm(model).get_output_embeddings(), BaseTunerLayer):
        problems.append(
            "lora_target_modules: an adapter on the output head is left out when hidden states are multiplied with "
            "the head's weight. Remove the head from the targets, or train it whole through lora_modules_to_save."
        )
    if problems:
        raise ConfigError(problems)


def _unsafe_bias(bias: str) -> str:
    why = "trains biases that stay on when the adapter is off, so the teacher would not be the model as it was given"
    return f"lora_bias: {bias!r} {why}. Use 'none'."
