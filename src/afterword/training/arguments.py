"""TrainingArguments of a method: what it declares, under what a person sets."""

import dataclasses
import logging
from typing import Any

from transformers import TrainingArguments

from afterword.distributed import device_type
from afterword.methods import Method

_SEEN = {"logging_steps": 1, "logging_nan_inf_filter": False, "report_to": "none", "disable_tqdm": True}
"""A row of metrics for every step; a hidden NaN is the one thing worse than a stop."""
_PLAIN = {"save_strategy": "steps", "optim": "adamw_torch_fused", "dataloader_pin_memory": False}
"""AdamW in one pass over the weights: of short documents, most of a step's time on a CPU goes to the optimizer."""
_FIXED = {"remove_unused_columns": False, "ddp_find_unused_parameters": False}
"""Not for a person to choose: batches are ours, and every parameter is reached in every step."""


def training_arguments(method: Method, **settings: Any) -> TrainingArguments:
    """TrainingArguments with the method's declared defaults under `settings`."""
    # Without it, several processes on a machine without accelerators would each believe to be alone.
    machine = {"use_cpu": device_type() == "cpu"}
    given: dict[str, Any] = {**_SEEN, **_PLAIN, **machine, **method.defaults, **settings, **_FIXED}
    arguments = TrainingArguments(**given)
    # Says that equal to the Trainer's default means chosen, not left alone.
    arguments.declared_by = method.name  # pyright: ignore[reportAttributeAccessIssue]
    return arguments


def declared_arguments(method: Method, arguments: TrainingArguments) -> TrainingArguments:
    """A person's plain TrainingArguments, with the method's declaration where they kept the Trainer's default.

    A value equal to the Trainer's default cannot be told from one not given; to insist on it, build the arguments
    with `training_arguments(method, …)`. What changes is logged.
    """
    if hasattr(arguments, "declared_by"):
        return arguments
    stock = TrainingArguments(output_dir=arguments.output_dir)
    declared = {**method.defaults, "logging_nan_inf_filter": False, **_FIXED}
    left = {name for name in declared if getattr(arguments, name) == getattr(stock, name)}
    changed = {name: declared[name] for name in left if declared[name] != getattr(stock, name)}
    if changed:
        logging.getLogger(__name__).warning("The method %r declares %s", method.name, sorted(changed.items()))
    return dataclasses.replace(arguments, **changed)
