"""TrainingArguments as a method declares them. A person's own values win; the Trainer's defaults do not."""

from __future__ import annotations

import dataclasses
import logging
from difflib import get_close_matches
from typing import Any

from transformers import TrainingArguments

from afterword.methods import Method

_HOUSE = {
    # A row of metrics for every step; a hidden NaN is the one thing worse than a stop.
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "steps",
    "save_steps": 500,
    # The plain form: the fused one is another order of the same arithmetic.
    "optim": "adamw_torch",
}
_FIXED = {"remove_unused_columns": False, "ddp_find_unused_parameters": False}
"""Not for a person to choose: batches are ours, and every parameter is reached in every step."""


def training_arguments(method: Method, **settings: Any) -> TrainingArguments:
    """TrainingArguments with the method's declared defaults under `settings`."""
    arguments = TrainingArguments(**{**_HOUSE, **method.defaults, **settings, **_FIXED})
    arguments.dataloader_pin_memory = False
    return arguments


def declared_arguments(method: Method, arguments: TrainingArguments) -> TrainingArguments:
    """A person's plain TrainingArguments, with the method's declaration where they kept the Trainer's default.

    A value equal to the Trainer's default cannot be told from one not given; to insist on it, build the arguments
    with `training_arguments(method, …)`. What changes is logged.
    """
    stock = TrainingArguments(output_dir=arguments.output_dir)
    declared = {**method.defaults, "logging_nan_inf_filter": False, **_FIXED}
    changed = {
        name: value
        for name, value in declared.items()
        if getattr(arguments, name) == getattr(stock, name) and getattr(stock, name) != value
    }
    if changed:
        listed = ", ".join(f"{name}={value}" for name, value in sorted(changed.items()))
        logging.getLogger(__name__).warning("The method %r declares %s", method.name, listed)
    known = {item.name for item in dataclasses.fields(arguments) if item.init}
    values = {name: getattr(arguments, name) for name in known}
    return type(arguments)(**{**values, **changed})


_OURS = {
    "output_dir": "output_dir",
    "per_device_train_batch_size": "documents_per_step",
    "per_gpu_train_batch_size": "documents_per_step",
    "bf16": "precision",
    "fp16": "precision",
    "remove_unused_columns": "nothing: batches are built by the view",
    "ddp_find_unused_parameters": "nothing: every parameter is reached in every step",
    "label_names": "nothing: targets are built by the view",
    "group_by_length": "documents_per_step",
    "train_sampling_strategy": "documents_per_step",
}


def field_problems(settings: dict[str, Any]) -> list[str]:
    """What is wrong with the fields given under `trainer:`: unknown ones, and those that a setting of ours decides."""
    known = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    problems = []
    for name in settings:
        if name in _OURS:
            problems.append(f"trainer.{name}: decided by {_OURS[name]}. Leave it out.")
        elif name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "See TrainingArguments for its fields."
            problems.append(f"trainer.{name}: no such field of TrainingArguments. {hint}")
    return problems
