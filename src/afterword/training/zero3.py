"""DeepSpeed's ZeRO-3 under the trainer: what its engine is told, and what it does in the place of others.

The one rule: the engine takes an optimizer step when the trainer does, after all micro-batches, and divides nothing.
accelerate would have it take one in `backward`, before anyone could look at the gradient.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from afterword.distributed import gathered

_OWN = {"optimizer": "the optimizer is the method's", "scheduler": "the schedule is a setting of its own"}
_UNTRIED = ("offload_param", "offload_optimizer", "zero_quantized_weights", "zero_quantized_gradients")


def configuration_problems(config: Mapping[str, Any]) -> Iterator[str]:
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


def configure(config: dict[str, Any], *, autocast: bool) -> None:
    """Weights, gradients and what goes between processes in float32; products under autocast, as without shards."""
    config["fp16"] = config["bf16"] = {"enabled": False}
    config["torch_autocast"] = {"enabled": autocast, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    config.setdefault("zero_optimization", {})["stage3_gather_16bit_weights_on_model_save"] = True
    config["zero_allow_untested_optimizer"] = True


def backward(engine: Any, loss: Tensor, *, last: bool) -> None:
    """The gradient of a micro-batch added to the shards; `last` of an optimizer step or not."""
    engine.set_gradient_accumulation_boundary(is_boundary=last)
    engine.backward(loss, scale_wrt_gas=False)


def gradient_norm(model: Any) -> float:
    """Of all gradients of the step, over all processes, which call it together before the engine's step."""
    from deepspeed.utils import safe_get_local_grad  # pyright: ignore  # no dependency of ours

    shards = [safe_get_local_grad(parameter) for parameter in model.parameters() if parameter.requires_grad]
    mine = sum(float(shard.double().square().sum()) for shard in shards if shard is not None)
    return math.sqrt(sum(gathered([mine])))
