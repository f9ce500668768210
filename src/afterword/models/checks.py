"""What is checked when a model is loaded: finite weights, a head that we understand, and packing."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from afterword.errors import CheckpointError
from afterword.models.backbone import causal_lm, head_of, trained_states
from afterword.types import View

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF_TOLERANCE = 3e-2
"""Relative to the logits' norm. In silence contaminating architectures are off by 6e-2 and more."""


def check_weights(model: Any, name: str) -> None:
    """CheckpointError where a weight is NaN or infinite."""
    for key, value in model.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"model_name_or_path: {name!r} has non-finite values in {key}. The weights are damaged; get them again."
            )


@torch.no_grad()
def check_head(model: Any) -> None:
    """CheckpointError where logits are not what the head makes of the hidden states."""
    view = _packed([_probe_ids(model, 9)], model.device)
    with _probing(model):
        states = trained_states(model, view)
        ours = head_of(model).logits(states)
        theirs = model(input_ids=view.input_ids, use_cache=False).logits[0, :-1]
    if not _close(ours, theirs.float(), states.dtype):
        kind = causal_lm(model).config.model_type
        raise CheckpointError(
            f"model_name_or_path: a {kind} model does something to its logits that Afterword does not know. Known: "
            "bias, logit_scale, logits_scaling, final_logit_softcapping."
        )


@torch.no_grad()
def packs_cleanly(model: Any) -> bool:
    """Whether two texts packed in one row give the hidden states that they give one by one.

    Some architectures read across the border in silence (convolutions, recurrences, masks of their own).
    """
    texts = [_probe_ids(model, 7), _probe_ids(model, 12)]
    with _probing(model):
        packed = trained_states(model, _packed(texts, model.device))
        alone = [trained_states(model, _packed([ids], model.device)) for ids in texts]
    return _close(packed, torch.cat(alone), packed.dtype)


def _close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    error = (ours - theirs).float().norm() / theirs.float().norm().clamp_min(1e-12)
    return bool(error <= _TOLERANCE.get(dtype, _HALF_TOLERANCE))


@contextlib.contextmanager
def _probing(model: Any) -> Any:
    """Eval mode, and bfloat16 where the attention kernel takes nothing else."""
    training, config = model.training, causal_lm(model).config
    flash = "flash" in str(getattr(config, "_attn_implementation", ""))
    model.eval()
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=flash):
            yield
    finally:
        model.train(training)


def _probe_ids(model: Any, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    return torch.randint(vocabulary, (length,), generator=generator)


def _packed(texts: list[Tensor], device: torch.device) -> View:
    """The texts in one row, every position but each text's last one trained."""
    positions = torch.cat([torch.arange(len(ids)) for ids in texts])
    last = torch.tensor([len(ids) for ids in texts]).cumsum(0) - 1
    trained = torch.tensor(sorted({*range(len(positions))} - {*last.tolist()}))
    ids = torch.cat(texts)
    return View(ids[None].to(device), positions[None].to(device), None, trained.to(device), len(ids))
