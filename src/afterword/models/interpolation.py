"""Weights between a model and its adapted self: θ0 + λ(θ − θ0), the weight repair of METHODS §4.

Of two models, or walked in the place of the one that was trained. The one rule: no weight is passed over in silence.
Each is interpolated, scaled, or shown to be the base's own.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afterword.errors import CheckpointError, ConfigError
from afterword.models.backbone import causal_lm, has_adapter, name_below
from afterword.models.going_on import goes_on
from afterword.models.lora import refuse_unsafe_adapters

_SCALED = ("lora_B", "lora_embedding_B")
_LINEAR = (*_SCALED, "lora_A", "lora_embedding_A")
"""The parts of an adapter whose update is B·A, so that λ·B gives λ·B·A."""
_WHOLE = "modules_to_save"
_COMPUTED_WITH = ("hidden_act", "num_attention_heads", "num_key_value_heads", "rope_parameters")
"""What of a configuration decides on what weights of the same shapes mean."""


def blended(base: Any, adapted: Any, share: float) -> Any:
    """A copy of `adapted` with the weights θ0 + λ(θ − θ0), λ being `share`: 0 is the base, 1 the adapted model.

    Errors as of `refuse_unlike`.
    """
    refuse_unlike(base, adapted)
    return blend_into(base, copy.deepcopy(adapted), share)


def blend_into(base: Any, adapted: Any, share: float) -> Any:
    """Give `adapted` itself the weights θ0 + λ(θ − θ0).

    WiSE-FT (arXiv:2109.01903) and LM-Cocktail (arXiv:2311.13534). Computed in float32, left in the precision of
    `adapted`; tied weights stay tied, buffers are those of `adapted`. An adapter stays one: λ scales its update, and
    its `modules_to_save` are interpolated. To be called for models that `refuse_unlike` lets pass.
    """
    blend = adapted
    start = dict(base.named_parameters())
    if has_adapter(blend):
        # A module trained whole has the one that it replaced beside it.
        every = dict(blend.named_parameters(remove_duplicate=False))
        saved = [name for name in every if f".{_WHOLE}." in name]
        start = {name: every[_replaced(name)] for name in saved}
    with torch.no_grad():
        for name, weight in blend.named_parameters():
            if name in start:
                weight.copy_(torch.lerp(start[name].float(), weight.float(), share))
            elif _scales_update(name):
                weight.copy_(share * weight.float())
    return blend


def refuse_unlike(base: Any, adapted: Any) -> None:
    """Raise where there is nothing between two models.

    CheckpointError, naming the first difference, where they are not of one architecture and shape, or an adapter is
    not of this base; ConfigError for an adapter whose update is not linear in λ, as DoRA's.
    """
    adapter = has_adapter(adapted)
    if adapter:
        _refuse_other_than_lora(adapted)
    own, theirs = dict(base.named_parameters()), dict(causal_lm(adapted).named_parameters())
    if adapter:
        theirs = {name_below(name): v for name, v in theirs.items() if not _is_any((*_LINEAR, _WHOLE), name)}
    different = _other_architecture(base, causal_lm(adapted)) or _other_shape(own, theirs)
    if adapter and not different:
        changed = (name for name in own if not torch.equal(own[name].float(), theirs[name].float()))
        different = next((f"{name} of the base is not the {name} below the adapter" for name in changed), None)
    if different:
        problem = f"adapted: nothing is between it and the base, because {different}"
        raise CheckpointError(f"{problem}. Give the base that it was adapted from.")


class Between:
    """The way θ0 + λ(θ − θ0) of the weights that are trained (WiSE-FT, arXiv:2109.01903), walked in place.

    Made before the first step: it keeps the trained weights as they are then, on the CPU, and, once `at` is first
    called, what they have become. `start` are others to start from, by the names of those that are trained. At share 1
    every weight is, bit for bit, what was trained. Of a new LoRA the update is scaled by λ, so that it stays on the
    straight way; of one that goes on both factors are interpolated, which is a way from what was given, bent a little.
    """

    def __init__(self, model: Any, start: Mapping[str, Tensor] | None = None):
        self.model = model
        self.start = _held(model) if start is None else start
        self.end: dict[str, Tensor] | None = None
        self.scales = not goes_on(model)

    @torch.no_grad()
    def at(self, share: float) -> None:
        """Put the weights at λ = `share` into the model."""
        if self.end is None:
            self.end = _held(self.model)
        for name, weight in _trained(self.model):
            start, end = self.start[name], self.end[name]
            if share == 1 or (self.scales and _keeps_direction(name)):
                value = end
            elif self.scales and _scales_update(name):
                value = share * end.float()
            else:
                value = torch.lerp(start.float(), end.float(), share)
            weight.copy_(value)


def _scales_update(name: str) -> bool:
    """Whether a weight is the factor of an adapter's update that is scaled by λ."""
    return _is_any(_SCALED, name)


def _keeps_direction(name: str) -> bool:
    """Whether a weight is the other factor of an adapter's update, which stays as it was trained at every λ."""
    return _is_any(_LINEAR, name) and not _scales_update(name)


def _refuse_other_than_lora(adapted: Any) -> None:
    kinds = {config.peft_type.value for config in adapted.peft_config.values()} - {"LORA"}
    parts = {part for name, _ in adapted.named_parameters() for part in name.split(".")}
    others = {part for part in parts - {*_LINEAR} if part.startswith(("lora_", "trainable_tokens"))}
    if kinds or others:
        problem = f"adapted: an adapter with {min(kinds | others)} does not grow in proportion to λ"
        raise ConfigError(f"{problem}. Merge it (afterword adapt --merge-adapter), and give the merged model.")
    refuse_unsafe_adapters(adapted)


def _other_architecture(base: Any, adapted: Any) -> str | None:
    if type(base) is not type(adapted):
        return f"the base is a {type(base).__name__} and it is a {type(adapted).__name__}"
    configs = [model.config.get_text_config() for model in (base, adapted)]
    sides = {name: [getattr(config, name, None) for config in configs] for name in _COMPUTED_WITH}
    return next((f"{name} is {a!r} in the base and {b!r} in it" for name, (a, b) in sides.items() if a != b), None)


def _other_shape(base: Mapping[str, Tensor], adapted: Mapping[str, Tensor]) -> str | None:
    shapes = [{name: list(weight.shape) for name, weight in weights.items()} for weights in (base, adapted)]
    sides = {name: [side.get(name, "missing") for side in shapes] for name in (*base, *adapted)}
    return next((f"{name} is {a} in the base and {b} in it" for name, (a, b) in sides.items() if a != b), None)


def _is_any(parts: tuple[str, ...], name: str) -> bool:
    return bool({*parts} & {*name.split(".")})


def _replaced(name: str) -> str:
    """The name of the weight that a module trained whole has replaced: the adapter's own name falls out."""
    before, _, after = name.partition(f".{_WHOLE}.")
    return f"{before}.original_module.{after.partition('.')[2]}"


def _trained(model: Any) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _held(model: Any) -> dict[str, Tensor]:
    """Copies on the CPU, in the precision that they are trained in."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in _trained(model)}
