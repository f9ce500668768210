"""Which AdamW a run takes: torch's own, or torchao's with less memory, as `optimizer_states` says."""

import warnings
from typing import Any

import torch
from transformers import TrainingArguments

from afterword import models
from afterword.config import AdaptSettings
from afterword.errors import ConfigError


def optimizer_of(settings: AdaptSettings, model: Any, args: TrainingArguments) -> dict[str, Any]:
    """What AdaptationTrainer is given to build its optimizer from; nothing where it takes the one of `args`.

    ConfigError where torchao is missing, or where another optimizer is asked for.
    """
    states = settings.optimizer_states
    if states is None or (states == "float32" and not _half_precision(model)):
        return {}
    if other := settings.trainer.get("optim"):
        problem = f"optimizer_states: {states} is AdamW's, and trainer.optim is {other!r}"
        raise ConfigError(f"{problem}. Leave one of them out.")
    models.require_torchao(f"optimizer_states: {states}")
    from afterword.training.small_adamw import RoundedAdamW, RoundedAdamW8bit

    kind = RoundedAdamW8bit if states == "8bit" else RoundedAdamW
    rates = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    return {"optimizer_cls_and_kwargs": (kind, {**rates, "seed": args.seed})}


def warn_of_lost_updates(model: Any, args: TrainingArguments, optimizer: tuple[Any, dict[str, Any]] | None) -> None:
    """Say that half-precision weights are trained and rounded to the nearest value, where they are.

    `optimizer` is a class with its arguments, where the Trainer is not to take the one of `args`.
    """
    stochastic = getattr(optimizer and optimizer[0], "rounds_stochastically", False)
    for dtype in set() if stochastic else _half_precision(model):
        problem = (
            f"Trained weights are in {dtype}: at learning rate {args.learning_rate:g} most updates are rounded away."
        )
        remedy = "Load the model in float32 and train with precision=bf16_mixed, or set optimizer_states=float32."
        warnings.warn(f"{problem} {remedy}", stacklevel=3)


def _half_precision(model: Any) -> set[torch.dtype]:
    return {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
