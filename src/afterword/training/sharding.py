"""Sharded training: the ways to shard a model that give the gradient of one process. Others are refused."""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from afterword.distributed import is_zero3, process_count
from afterword.errors import ConfigError
from afterword.training import zero3

_LAUNCHED = (
    "deepspeed: accelerate's launcher would have the model loaded without weights. Launch with torchrun, and give the "
    "configuration as trainer.deepspeed."
)
_EMPTY = (
    "fsdp_config.cpu_ram_efficient_loading: true leaves all processes but one without weights, and each of them checks "
    "the model and keeps its teacher. Set it to false."
)


def refuse_before_loading(trainer_settings: Mapping[str, Any]) -> None:
    """ConfigError where the launcher or a field of TrainingArguments would have a model loaded without weights."""
    problems = [_LAUNCHED] if _launched_with("ACCELERATE_USE_DEEPSPEED") else []
    if trainer_settings.get("deepspeed") and not find_spec("deepspeed"):
        problems.append("deepspeed: is not installed. Run `pip install deepspeed`, or shard with trainer.fsdp.")
    if _launched_with("FSDP_CPU_RAM_EFFICIENT_LOADING") and not problems:
        problems = [_EMPTY]
    if problems:
        raise ConfigError(problems)


def sharded_by(trainer_settings: Mapping[str, Any]) -> str | None:
    """What a run is going to shard its model by; None: nothing."""
    for kind, environment in (("fsdp", "ACCELERATE_USE_FSDP"), ("deepspeed", "ACCELERATE_USE_DEEPSPEED")):
        if trainer_settings.get(kind) or _launched_with(environment):
            return kind
    return None


def prepare_sharding(trainer: Any) -> None:
    """ConfigError, with every problem, where a trainer's way of sharding would not give the gradient of one process.

    To be called before anything is sharded.
    """
    state, optimizer = trainer.accelerator.state, trainer.optimizer_cls_and_kwargs
    plugin, deepspeed = getattr(state, "fsdp_plugin", None), getattr(state, "deepspeed_plugin", None)
    problems = list(_deepspeed_problems(trainer, deepspeed.deepspeed_config)) if deepspeed else []
    if plugin:
        problems += _fsdp_problems(plugin, optimizer)
    elif process_count() > 1 and (trainer.args.fsdp or _launched_with("ACCELERATE_USE_FSDP")):
        why = "accelerate shards on GPUs alone, and would keep the whole model in every process without a word"
        problems.append(f"fsdp: {why}. Leave it out on a machine without GPUs.")
    split = getattr(trainer.accelerator, "parallelism_config", None)
    if split and any(getattr(split, f"{kind}_enabled", False) for kind in ("tp", "cp", "sp")):
        problems.append("parallelism_config: splits tensors or sequences, and only data may be. Use dp_ sizes alone.")
    if problems:
        raise ConfigError(problems)
    if plugin:
        # accelerate would gather weights in bfloat16 and add gradients in it. Autocast gives the same products without
        # rounding what a student that starts equal to its teacher must not lose: norms, residual stream, gradient.
        plugin.mixed_precision_policy = None
    if deepspeed:
        zero3.configure(deepspeed.deepspeed_config, autocast=trainer.args.bf16)


def _deepspeed_problems(trainer: Any, config: dict[str, Any]) -> Iterator[str]:
    yield from zero3.configuration_problems(config)
    if is_zero3(trainer.model):
        yield "model: was loaded in shards, without weights. Load it before TrainingArguments that name deepspeed."
    held = {"l2sp": trainer.pull, "ema": trainer.average}
    for name, given in held.items():
        if given:
            yield f"{name}: reads weights where ZeRO-3 has none. Leave it out, or shard with trainer.fsdp."
    optimizer = trainer.optimizer_cls_and_kwargs
    if getattr(optimizer and optimizer[0], "rounds_stochastically", False):
        yield "optimizer_states: is for weights that are whole in every process, and ZeRO-3 shards them. Leave it out."


def _fsdp_problems(plugin: Any, optimizer: tuple[Any, dict[str, Any]] | None) -> Iterator[str]:
    if plugin.fsdp_version != 2:
        yield f"fsdp_config.version: {plugin.fsdp_version} keeps weights in flat pieces without a head. Use version 2."
        return
    if plugin.cpu_ram_efficient_loading:
        yield _EMPTY
    if type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy":
        why = "the head is gathered where its shards are, which is not where the hidden states are"
        yield f"fsdp_config.cpu_offload: {why}. Leave it out."
    if getattr(optimizer and optimizer[0], "rounds_stochastically", False):
        yield "optimizer_states: is for weights that are whole in every process, and FSDP shards them. Leave it out."


def _launched_with(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
