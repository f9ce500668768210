"""An adapter merged into its model, in float32, saying the same as both did apart."""

from pathlib import Path
from typing import Any

import torch

from afterword.errors import CheckpointError
from afterword.models.adapters import adapter_on, untie
from afterword.models.backbone import causal_lm, name_below
from afterword.models.fixed_logits import difference, said
from afterword.models.four_bit import dequantise
from afterword.models.stored_precision import StoredModel

_SAME, _HALF = {torch.float32: 1e-5}, 3e-2
"""Relative to that norm too: of the same values, computed in float32 in both, or in float32 instead of in halves."""
_TOLERANCE = 1e-3
"""Relative to the norm of the logits: what other orders of float32 sums come to, with room for long ones."""


@torch.no_grad()
def widen(model: Any, given: StoredModel | None = None) -> None:
    """Hold the base of an adapter in float32, so that what is added to it is not rounded.

    What `given`, the base on the disk, has in a wider precision than it was loaded in is read from there.
    """
    for name, tensor in [*causal_lm(model).named_parameters(), *causal_lm(model).named_buffers()]:
        if tensor.dtype not in (torch.bfloat16, torch.float16):
            continue
        key = name_below(name)
        trained = tensor.requires_grad or key != name.replace(".base_layer.", ".")
        tensor.data = tensor.data.float()
        if given and not trained and given.dtypes.get(key, torch.bfloat16) in (torch.float32, torch.float64):
            tensor.copy_(given.tensor(key))


@torch.no_grad()
def out_of_4bit(model: Any, folder: Path) -> Any:
    """An adapter on a base of the same values as the 4 bits below it have, in float32; the model given is used up.

    `folder` is where the adapter was written. CheckpointError where both say something else than before.
    """
    before, tolerance = said(model), _SAME.get(causal_lm(model).dtype, _HALF)
    base = dequantise(model.unload()).float()
    apart = difference(before, said(plain := adapter_on(lambda _: base, str(folder))))
    if not apart <= tolerance:
        problem = (
            f"dequantised, model and adapter say something else: logits differ by {100 * apart:.2g} % of their norm"
        )
        raise CheckpointError(f"merge_adapter: {problem}. Leave merge_adapter out, and serve the adapter.")
    return plain


@torch.no_grad()
def merged(model: Any) -> Any:
    """The model with its adapter merged; the one that is given is used up.

    An embedding that is trained on its own is no longer the output's weight. CheckpointError where the merged model
    says something else than model and adapter.
    """
    before = said(model)
    untie(model)
    whole = model.merge_and_unload()
    embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    config = whole.config.get_text_config()
    if getattr(config, "tie_word_embeddings", False) and embedding.weight is not head.weight:
        config.tie_word_embeddings = whole.config.tie_word_embeddings = False
    if not (apart := difference(before, said(whole))) <= _TOLERANCE:
        problem = f"merged, model and adapter say something else: logits differ by {100 * apart:.2g} % of their norm"
        raise CheckpointError(f"merge_adapter: {problem}. Leave merge_adapter out, and serve the adapter.")
    return whole
