"""A causal language model as two parts: a backbone that gives hidden states, and a head.

Everything that knows how transformers and peft arrange their modules is in this folder.
"""

import contextlib
import copy
import inspect
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn

from afterword.distributed import is_sharded, present, whole
from afterword.objectives import Head
from afterword.types import InputRows, SharedRows

_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What configurations call the bound that logits are bent below."""


def causal_lm(model: Any) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_adapter(model: Any) -> bool:
    """Whether a model is one with an adapter of peft on it."""
    return hasattr(model, "disable_adapter")


def is_checkpointed(model: Any) -> bool:
    """Whether a backward pass through it reads its layers once more."""
    inner = causal_lm(model)
    # Older versions of transformers have the other name alone.
    newer = hasattr(type(inner), "is_activation_checkpointing")
    return bool(inner.is_activation_checkpointing if newer else inner.is_gradient_checkpointing)


def name_below(name: str) -> str:
    """The name that a weight below an adapter has in the model that the adapter is on."""
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def device_of(model: Any) -> torch.device:
    """Where a model takes token ids; of one on several devices, where its embedding computes."""
    inner = causal_lm(model)
    places = getattr(inner, "hf_device_map", None)
    if not places:
        return inner.device
    hook = getattr(inner.get_input_embeddings(), "_hf_hook", None)
    found = getattr(hook, "execution_device", None)
    return inner.device if found is None else torch.device(found)


def is_partly_away(model: Any) -> bool:
    """Whether weights of it are on the disk or in main memory, and come where it computes for a forward alone."""
    return any(weight.is_meta for weight in model.parameters())


def backbone_of(model: Any) -> nn.Module:
    """The module that maps token ids to last hidden states."""
    inner = causal_lm(model)
    if inner.base_model is not inner:
        return inner.base_model
    # Some classes (Llama 4) name their backbone otherwise than their family does.
    return next(part for part in inner.children() if hasattr(part, "get_input_embeddings"))


def head_of(model: Any, *, adapted: bool = True) -> Head:
    """The head's tensors, whole. `adapted=False`: as they were before an adapter replaced them (modules_to_save)."""
    inner = causal_lm(model)
    module, config = inner.get_output_embeddings(), inner.config
    if hasattr(module, "original_module"):
        module = module.modules_to_save[module.active_adapters[0]] if adapted else module.original_module
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    softcap = next((cap for name in _SOFTCAPS if (cap := getattr(config, name, None))), None)
    if module.weight.is_meta:
        with present(module):
            bias = getattr(module, "bias", None)
            return Head(module.weight.detach().clone(), None if bias is None else bias.detach().clone(), scale, softcap)
    return Head(whole(module.weight), whole(getattr(module, "bias", None)), float(scale), softcap)


def trained_states(model: Any, *views: InputRows | SharedRows) -> Tensor:
    """Hidden states [N, H] at the trained positions of one view after the other, straight from the backbone."""
    states = [_trained_states(model, v) if isinstance(v, InputRows) else _shared_states(model, v) for v in views]
    return states[0] if len(states) == 1 else torch.cat(states)


def _trained_states(model: Any, view: InputRows) -> Tensor:
    if is_sharded(model):
        # Its parameters are gathered by the forward of the outermost module.
        return trained_states_through(model, model, view)
    states_BTH = backbone_of(model)(**_inputs(view)).last_hidden_state
    return states_BTH.flatten(0, 1).index_select(0, view.trained)


def layer_states(model: Any, *views: InputRows | SharedRows) -> list[Tensor]:
    """Of every layer, the hidden states [N, H] after it at the trained positions; of the last, those of the head."""
    found = [_layer_states(backbone_of(model)(**_inputs(view), output_hidden_states=True), view) for view in views]
    return [torch.cat(of_layer) for of_layer in zip(*found, strict=True)]


def _layer_states(read: Any, view: InputRows | SharedRows) -> list[Tensor]:
    """Without those of the embedding, which no layer has touched."""
    states: list[Tensor] = [*read.hidden_states[1:-1], read.last_hidden_state]
    return [each.flatten(0, 1).index_select(0, view.trained) for each in states]


def layer_states_through(wrapped: Any, model: Any, view: InputRows) -> list[Tensor]:
    """The same through `wrapped`, as in `trained_states_through`."""
    caught: list[Any] = []
    with contextlib.ExitStack() as hooks:
        for part in _backbones(model):
            hooks.enter_context(part.register_forward_hook(lambda *call: caught.append(call[2])))
        wrapped(**_inputs(view), output_hidden_states=True, **_no_logits(model, view))
    return _layer_states(caught[-1], view)


def _no_logits(model: Any, view: InputRows) -> dict[str, Tensor]:
    """What asks for no logits at all, where the model's class can be asked so."""
    if "logits_to_keep" not in inspect.signature(causal_lm(model).forward).parameters:
        return {}
    return {"logits_to_keep": torch.zeros(0, dtype=torch.int64, device=view.input_ids.device)}


def _shared_states(model: Any, view: SharedRows) -> Tensor:
    """The same of texts that begin alike: keys and values of every beginning are kept, and repeated for its rows."""
    from transformers import DynamicCache

    mask = view.beginning_mask
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    inputs = {"input_ids": view.beginning_ids, "attention_mask": mask, "position_ids": positions}
    # Without the model's configuration the cache keeps everything; a sliding window is in the mask all the same.
    found = backbone_of(model)(**inputs, past_key_values=DynamicCache(), use_cache=True)
    last_PH = found.last_hidden_state[:, -1]
    states = [
        torch.cat([last_PH[view.follows[rows], None], _following_states(model, view, rows, found.past_key_values)], 1)
        for rows in torch.arange(len(view.input_ids), device=mask.device).split(view.rows_at_once)
    ]
    return torch.cat(states).flatten(0, 1).index_select(0, view.trained)


def _following_states(model: Any, view: SharedRows, rows: Tensor, kept: Any) -> Tensor:
    """[rows, T, H]: hidden states of some rows behind what is kept of their beginnings, which stays as it is."""
    mask, of_rows = view.beginning_mask, cache_of_rows(kept, view.follows[rows])
    begun = mask[view.follows[rows]]
    positions = begun.sum(-1, keepdim=True) + torch.arange(view.input_ids.shape[1], device=mask.device)
    seen = torch.cat([begun, view.attention_mask[rows]], dim=1)
    inputs = {"input_ids": view.input_ids[rows], "attention_mask": seen, "position_ids": positions}
    return backbone_of(model)(**inputs, past_key_values=of_rows, use_cache=True).last_hidden_state


def cache_of_rows(kept: Any, rows: Tensor) -> Any:
    """What is kept of some rows, [R] int64, any of them several times; what all of them have stays as it is."""
    of_rows = copy.copy(kept)
    of_rows.layers = [copy.copy(layer) for layer in kept.layers]
    of_rows.batch_select_indices(rows)
    return of_rows


def trained_states_through(wrapped: Any, model: Any, view: InputRows) -> Tensor:
    """The same through `wrapped`, the module that accelerate prepared around `model`.

    Gradients are synchronised only for a forward of the wrapped module. It is asked for no logits at all, where its
    class can be asked so (`logits_to_keep` is empty: its head multiplies zero rows), and the hidden states are read
    where the backbone returns them.
    """
    caught: list[Tensor] = []
    with contextlib.ExitStack() as hooks:
        for part in _backbones(model):
            hooks.enter_context(part.register_forward_hook(lambda *call: caught.append(call[2].last_hidden_state)))
        logits = wrapped(**_inputs(view), **_no_logits(model, view)).logits
    # The outermost part ends last.
    states_NH = caught[-1].flatten(0, 1).index_select(0, view.trained)
    if is_sharded(wrapped):
        # FSDP2 learns from the gradient on the module's own output that the backward pass begins.
        states_NH = states_NH + 0 * logits.sum().to(states_NH.dtype)
    return states_NH


def _backbones(model: Any) -> list[nn.Module]:
    """The backbone; and the decoder in it, which some classes (OPT, BART) call past it."""
    whole_of: Any = backbone_of(model)
    decoder = whole_of.get_decoder() if hasattr(whole_of, "get_decoder") else whole_of
    return [decoder, whole_of] if decoder is not whole_of and decoder is not causal_lm(model) else [whole_of]


@contextlib.contextmanager
def only_reading(model: Any) -> Generator[None]:
    """Eval mode and no gradients; the model is left in the mode it was in."""
    training = model.training
    if training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            model.train()


def _inputs(view: InputRows | SharedRows) -> dict[str, Any]:
    assert isinstance(view, InputRows), "texts that begin alike are read in two parts"
    inputs = {name: getattr(view, name) for name in ("input_ids", "position_ids", "attention_mask")}
    # With a cache asked for, transformers does not look for packed sequences in position_ids.
    return {**inputs, "use_cache": False}
