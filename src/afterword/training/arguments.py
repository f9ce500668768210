"""TrainingArguments of a method: what it declares, under what a person sets, and what they may not ask for."""

import dataclasses
import logging
import warnings
from typing import Any

from transformers import TrainingArguments

from afterword.distributed import device_type
from afterword.errors import ConfigError
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


def on_one_gpu(args: TrainingArguments) -> TrainingArguments:
    """The arguments, for one GPU: one process trains on one. Where more are visible, that is said.

    The Trainer would cut every batch by its rows among all of them (DataParallel). A batch of ours is one row, or
    rows whose trained positions are counted together.
    """
    if (visible := args.n_gpu) > 1:
        problem = f"{visible} GPUs are visible, and one process trains on one: {args.device}"
        how = f"torchrun --nproc_per_node {visible} -m afterword adapt …"
        warnings.warn(f"{problem}. To use all, start it by {how}", stacklevel=3)
        args._n_gpu = 1  # pyright: ignore[reportPrivateUsage]  (nothing public sets it)
    return args


def check_step(args: TrainingArguments, documents_per_step: int, step_tokens: int | None) -> None:
    """ConfigError where a step of documents has fewer than it has parts."""
    processes = int(args.world_size)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]  (a property without a type)
    parts = processes * args.gradient_accumulation_steps
    if step_tokens is None and documents_per_step < parts:
        why = f"{processes} processes × gradient_accumulation_steps {args.gradient_accumulation_steps}"
        problem = f"documents_per_step: {documents_per_step} is fewer than the {parts} parts of a step ({why})"
        raise ConfigError(f"{problem}, so some would train on nothing. Use at least {parts}, or fewer parts.")
