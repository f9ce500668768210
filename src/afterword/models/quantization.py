"""Teachers in 8 or 4 bits: torchao's weight-only quantisation of the backbone, and what it costs in nats.

The head and the embeddings stay as they are. The one rule: a quantised teacher is another teacher than the model as
it was given, so its distance from that is measured and said.
"""

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from afterword.distributed import device_type
from afterword.errors import ConfigError
from afterword.models.backbone import backbone_of, head_of, only_reading, trained_states
from afterword.objectives import Distillation, forward_kl, hidden_losses
from afterword.types import Batch

BITS = ("int8", "int4")
"""Values of `teacher_precision` that are made here."""
GROUP_SIZE = 128
"""Values that share a scale and a zero point in 4 bits; a row does in 8."""


def require_torchao(setting: str) -> None:
    """ConfigError where torchao is not installed; `setting` is what needs it."""
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError(
            f"{setting} needs torchao, which is not installed. Install it: pip install 'afterword[small]'."
        )


def refuse_bits(precision: str, *, adapter: bool) -> None:
    """ConfigError for a teacher in bits that this machine has no kernels for, or that is no copy (`adapter`)."""
    if precision not in BITS:
        return
    if adapter:
        problem = f"teacher_precision: {precision} with use_peft, whose teacher is the student with its adapter off"
        raise ConfigError(f"{problem}: there is no copy to make smaller. Use auto.")
    require_torchao(f"teacher_precision: {precision}")
    if precision == "int4" and not (device_type() == "cuda" and torch.cuda.get_device_capability() >= (8, 0)):
        problem = "teacher_precision: int4 has kernels only for CUDA devices from compute capability 8.0 on"
        raise ConfigError(f"{problem}, and none is here. Use int8.")


def quantised(model: Any, precision: str) -> Any:
    """The model with every linear layer of its backbone in int8 (a scale a row) or int4 (one a group), in place.

    Any other precision changes nothing. int4 moves it to the GPU. ConfigError where no layer can be quantised.
    """
    if precision not in BITS:
        return model
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    if precision == "int4":
        form: Any = "tile_packed_to_4d"
        how: Any = Int4WeightOnlyConfig(group_size=GROUP_SIZE, set_inductor_config=False, int4_packing_format=form)
        model = model.to("cuda")
    else:
        how = Int8WeightOnlyConfig(set_inductor_config=False)
    backbone = backbone_of(model)
    layers = [module for module in backbone.modules() if _fits(module, precision)]
    if not layers:
        problem = f"teacher_precision: {precision} fits no layer of this model"
        raise ConfigError(f"{problem} (rows must be multiples of {GROUP_SIZE} values). Use int8 or bf16.")
    chosen = {id(layer) for layer in layers}
    quantize_(backbone, how, filter_fn=lambda module, _: id(module) in chosen)
    for parameter in model.parameters():
        if type(parameter.data) is Tensor:
            # On the CPU it is a part of the mapped file, which would stay in memory whole.
            parameter.data = parameter.data.clone()
    return model


@torch.no_grad()
def quantisation_error_nats(exact: Any, quantised: Any, batches: Iterable[Batch]) -> tuple[float, int]:
    """Mean KL(exact ‖ quantised) per trained position of what the teacher reads there, and how many positions.

    `batches` are on the models' device.
    """
    total, positions = 0.0, 0
    for batch in batches:
        assert batch.teacher, "only what a teacher reads is measured"
        sides: list[tuple[Tensor, Any]] = []
        for model in (quantised, exact):
            with only_reading(model):
                sides.append((trained_states(model, *batch.teacher), head_of(model)))
        losses = hidden_losses(Distillation(forward_kl), sides[0], sides[1], batch.target_ids)
        total, positions = total + float(losses.double().sum()), positions + len(losses)
    return total / max(1, positions), positions


def _fits(module: nn.Module, precision: str) -> bool:
    return isinstance(module, nn.Linear) and (precision == "int8" or module.in_features % GROUP_SIZE == 0)
