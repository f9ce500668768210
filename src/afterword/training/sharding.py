"""Sharded training: the ways that give the gradient of one process, and what each needs. Others are refused.

Every forward and backward of a sharded model is one of all processes, so all must have as many batches, of the same
kinds (`in_lockstep`). DeepSpeed's engine takes an optimizer step when the trainer does, after all micro-batches, and
divides nothing: accelerate would have it take one in `backward`, before anyone could look at the gradient.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from afterword.distributed import gathered, is_sharded, is_zero3, process_count
from afterword.errors import ConfigError
from afterword.training.optimizers import Optimizer, rounds_stochastically
from afterword.types import Batch, InputRows, SharedRows

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
        _configure_zero3(deepspeed.deepspeed_config, autocast=trainer.args.bf16)


def _deepspeed_problems(trainer: Any, config: dict[str, Any]) -> Iterator[str]:
    yield from _zero3_problems(config)
    if is_zero3(trainer.model):
        yield "model: was loaded in shards, without weights. Load it before TrainingArguments that name deepspeed."
    held = {"l2sp": trainer.pull, "ema": trainer.average}
    for name, given in held.items():
        if given:
            yield f"{name}: reads weights where ZeRO-3 has none. Leave it out, or shard with trainer.fsdp."
    if rounds_stochastically(trainer.optimizer_cls_and_kwargs):
        yield "optimizer_states: is for weights that are whole in every process, and ZeRO-3 shards them. Leave it out."


def _fsdp_problems(plugin: Any, optimizer: Optimizer | None) -> Iterator[str]:
    if plugin.fsdp_version != 2:
        yield f"fsdp_config.version: {plugin.fsdp_version} keeps weights in flat pieces without a head. Use version 2."
        return
    if plugin.cpu_ram_efficient_loading:
        yield _EMPTY
    if type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy":
        why = "the head is gathered where its shards are, which is not where the hidden states are"
        yield f"fsdp_config.cpu_offload: {why}. Leave it out."
    if rounds_stochastically(optimizer):
        yield "optimizer_states: is for weights that are whole in every process, and FSDP shards them. Leave it out."


def _launched_with(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")


_OWN = {"optimizer": "the optimizer is the method's", "scheduler": "the schedule is a setting of its own"}
_UNTRIED = ("offload_param", "offload_optimizer", "zero_quantized_weights", "zero_quantized_gradients")


def _zero3_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be honoured of a DeepSpeed configuration, in words."""
    zero: Mapping[str, Any] = config.get("zero_optimization", {})
    if zero.get("stage") != 3:
        why = f"{zero.get('stage')} leaves weights whole, and only shards of stage 3 are checked"
        yield f"deepspeed.zero_optimization.stage: {why}. Give 3, or leave deepspeed out."
    for name in _UNTRIED:
        if zero.get(name):
            yield f"deepspeed.zero_optimization.{name}: is not among what is checked here. Leave it out."
    for name, why in _OWN.items():
        if name in config:
            yield f"deepspeed.{name}: {why}. Leave it out."
    if config.get("fp16", {}).get("enabled") is True:
        yield "deepspeed.fp16: is too coarse for gradients this small. Leave it out, and give precision: bf16_mixed."


def _configure_zero3(config: dict[str, Any], *, autocast: bool) -> None:
    """Weights, gradients and what goes between processes in float32; products under autocast, as without shards."""
    config["fp16"] = config["bf16"] = {"enabled": False}
    config["torch_autocast"] = {"enabled": autocast, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    config.setdefault("zero_optimization", {})["stage3_gather_16bit_weights_on_model_save"] = True
    config["zero_allow_untested_optimizer"] = True


def zero3_backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    """The gradient of a micro-batch added to the shards; `last` of an optimizer step or not."""
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(loss, scale_wrt_gas=False)


def zero3_gradient_norm(model: Any) -> float:
    """Of all gradients of the step, over all processes, which call it together before the engine's step."""
    from deepspeed.utils import safe_get_local_grad  # pyright: ignore  (no dependency of ours)

    shards: list[Tensor | None] = [
        safe_get_local_grad(parameter) for parameter in model.parameters() if parameter.requires_grad
    ]
    mine = sum(float(shard.double().square().sum()) for shard in shards if shard is not None)
    return math.sqrt(sum(gathered([mine])))


def in_lockstep(batches: Iterable[Batch], model: Any) -> list[Batch]:
    """The batches; of a sharded model by term, with idle ones behind those of a term of which another process has more.

    All processes call it together; then at every place all have a batch of the same term.
    """
    batches = list(batches)
    if not is_sharded(model):
        return batches
    mine = {term: [batch for batch in batches if batch.term == term] for term in {batch.term for batch in batches}}
    # An idle batch comes from a process that has one of the term: it may be that this one has none to take it from.
    everyone = gathered([{term: (len(own), idle(own[0])) for term, own in mine.items()}])
    even: list[Batch] = []
    for term in sorted({term for theirs in everyone for term in theirs}):
        known = [theirs[term] for theirs in everyone if term in theirs]
        own = mine.get(term, [])
        even += [*own, *[known[0][1]] * (max(count for count, _ in known) - len(own))]
    return _as_many_views(even)


def _as_many_views(batches: list[Batch]) -> list[Batch]:
    """The batches, with idle views for the teacher behind their own where another process has more at that place."""
    mine = [len(batch.teacher) for batch in batches]
    counts = gathered(mine)
    most = [max(counts[place :: len(mine)]) for place in range(len(mine))]
    return [
        replace(batch, teacher=(*batch.teacher, *map(_first_token, batch.teacher[:1] * (views - len(batch.teacher)))))
        for batch, views in zip(batches, most, strict=True)
    ]


def idle(batch: Batch) -> Batch:
    """A batch of the same kind that trains no position and counts no token: of each view one token is read."""
    rows = batch.teacher_rows
    return replace(
        batch,
        student=_first_token(batch.student),
        teacher=tuple(map(_first_token, batch.teacher[:1])),
        target_ids=batch.target_ids[:0].clone(),
        weights=batch.weights[:0].clone(),
        sources=batch.sources[:0].clone(),
        sequences=batch.sequences[:0].clone(),
        total_weight=0.0,
        documents=(),
        teacher_rows=None if rows is None else rows[:0].clone(),
    )


def _first_token(view: InputRows | SharedRows) -> InputRows:
    assert isinstance(view, InputRows), "a teacher in shards reads every text whole"
    mask = None if view.attention_mask is None else view.attention_mask[:1, :1].clone()
    ids, positions = view.input_ids[:1, :1].clone(), view.position_ids[:1, :1].clone()
    return InputRows(ids, positions, mask, trained=view.trained[:0].clone(), tokens=0)
