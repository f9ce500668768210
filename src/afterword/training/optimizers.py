"""Which AdamW a run takes: torch's own, or torchao's with less memory, as `optimizer_states` says."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, optimization

from afterword import models
from afterword.errors import ConfigError
from afterword.settings.adapt import AdaptSettings

_OF_A_WHOLE_MODEL = ("galore", "apollo", "lomo", "adalomo")
"""Optimizers that are made of named modules."""


Optimizer = tuple[type[torch.optim.Optimizer], dict[str, Any]]
"""A class with its arguments, as the Trainer takes `optimizer_cls_and_kwargs`."""


def optimizer_of(settings: AdaptSettings, model: Any, args: TrainingArguments) -> Optimizer | None:
    """What AdaptationTrainer is to build its optimizer from; None where it takes the one of `args`.

    ConfigError where torchao is missing, or where another optimizer is asked for.
    """
    states = settings.optimizer_states
    if states is None or (states == "float32" and not _half_precision(model)):
        return None
    if other := settings.trainer.get("optim"):
        problem = f"optimizer_states: {states} is AdamW's, and trainer.optim is {other!r}"
        raise ConfigError(f"{problem}. Leave one of them out.")
    models.require_torchao(f"optimizer_states: {states}")
    from afterword.training.small_adamw import RoundedAdamW, RoundedAdamW8bit

    kind = RoundedAdamW8bit if states == "8bit" else RoundedAdamW
    betas = (args.adam_beta1, args.adam_beta2)
    return kind, {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon, "seed": args.seed}


def try_optimizer(args: TrainingArguments, given: Mapping[str, Any]) -> None:
    """ConfigError where optimizer and schedule cannot be made of the arguments, as found on one weight.

    `given`: what a person set of them, by the names that it was set by.
    """
    if str(getattr(args.optim, "value", args.optim)).startswith(_OF_A_WHOLE_MODEL):
        return
    weight = torch.nn.Parameter(torch.ones(2, 2))
    with _told_of({name: value for name, value in given.items() if "scheduler" not in name}):
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
        if args.optim_args and (kind, options) == Trainer.get_optimizer_cls_and_kwargs(_without_arguments(args)):
            raise ConfigError(f"trainer.optim_args: {args.optim_args} has no effect on {kind.__name__}. Leave it out.")
        optimizer = kind([weight], **options)
        if kind.__module__.startswith("torch.optim"):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            if not torch.isfinite(weight).all():
                raise ConfigError(f"learning_rate: {args.learning_rate:g} makes weights infinite at once. Lower it.")
    steps = max(args.max_steps, 100)
    with _told_of({name: value for name, value in given.items() if "scheduler" in name or "warmup" in name}):
        library: Any = optimization  # Its functions come without types.
        warmup = args.get_warmup_steps(steps)
        own: Any = args.lr_scheduler_kwargs  # pyright: ignore  (a dict of anything)
        schedule: Any = library.get_scheduler(
            args.lr_scheduler_type, optimizer, warmup, steps, scheduler_specific_kwargs=own
        )
        stepped = isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        step: Callable[[], None] = schedule.step
        for _ in range(steps if stepped else 0):
            step()


def _without_arguments(args: TrainingArguments) -> TrainingArguments:
    other = copy.copy(args)
    other.optim_args = None
    return other


@contextlib.contextmanager
def _told_of(given: Mapping[str, Any]) -> Generator[None, None, None]:
    """What torch or transformers refuse becomes a ConfigError under the settings that they quote, or all of those."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ConfigError:
        raise
    except (ValueError, TypeError, RuntimeError, OverflowError, ImportError, KeyError, ZeroDivisionError) as error:
        text = " ".join(str(error).split())
        quoted = [name for name, value in given.items() if str(value) in text]
        # The largest rate is refused without being quoted.
        named = quoted or (["learning_rate"] if "overflow" in text and "learning_rate" in given else list(given))
        shown = ", ".join(f"{name}={given[name]}" for name in named)
        raise ConfigError(f"{named[0] if named else 'trainer'}: cannot be used ({shown}). {text}") from error


def rounds_stochastically(optimizer: Optimizer | None) -> bool:
    """Whether it is one of `small_adamw`."""
    return getattr(optimizer and optimizer[0], "rounds_stochastically", False)


def warn_of_lost_updates(model: Any, args: TrainingArguments, optimizer: Optimizer | None) -> None:
    """Say that half-precision weights are trained and rounded to the nearest value, where they are.

    `optimizer`: where the Trainer is not to take the one of `args`.
    """
    for dtype in set[torch.dtype]() if rounds_stochastically(optimizer) else _half_precision(model):
        problem = (
            f"Trained weights are in {dtype}: at learning rate {args.learning_rate:g} most updates are rounded away."
        )
        remedy = "Load the model in float32 and train with precision=bf16_mixed, or set optimizer_states=float32."
        warnings.warn(f"{problem} {remedy}", stacklevel=3)


def _half_precision(model: Any) -> set[torch.dtype]:
    return {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
