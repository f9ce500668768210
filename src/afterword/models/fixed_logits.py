"""What a model says to a few fixed tokens: by it, a model on the disk is compared with the one in memory."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afterword.errors import CheckpointError
from afterword.models.backbone import causal_lm, only_reading
from afterword.models.checks import reading_autocast
from afterword.models.four_bit import four_bit_of, load_in_4bit
from afterword.models.load import load_adapted

_TOKENS = 30
_SAME_DEVICE = {torch.float32: 1e-5, torch.float64: 1e-8}
_OTHER_DEVICE = {torch.float32: 1e-3}
_HALF = 3e-2
"""All relative to the norm of the logits."""


def said(model: Any) -> Tensor:
    """Logits [1, T, V] at fixed tokens, float32, on the CPU."""
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, _TOKENS), generator=torch.Generator().manual_seed(7)).to(model.device)
    with only_reading(model), reading_autocast(model):
        return model(input_ids=ids, use_cache=False).logits.float().cpu()


def difference(first: Tensor, second: Tensor) -> float:
    """Norm of the difference of two answers, relative to the first."""
    return float((first - second).norm() / first.norm().clamp_min(1e-12))


def refuse_unlike_folder(model: Any, folder: Path) -> None:
    """CheckpointError where a model or an adapter that was written to a folder says another thing, read from it."""
    dtype = next(parameter.dtype for parameter in causal_lm(model).parameters())
    again = _read_again(model, folder, dtype)
    apart = difference(said(model), said(again))
    tolerances = _SAME_DEVICE if model.device == again.device else _OTHER_DEVICE
    if not apart <= tolerances.get(dtype, _HALF):
        problem = f"what was written to {str(folder)!r} is not what was trained: read again, its logits differ"
        remedy = "The checkpoints are intact. Please report it, with the model's name."
        raise CheckpointError(f"output_dir: {problem} by {100 * apart:.2g} % of their norm. {remedy}")


def _read_again(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    """What is in a folder, on a base that is held as that of the model is."""
    if (four_bit := four_bit_of(model)) is None:
        return load_adapted(str(folder), dtype=dtype)
    return load_in_4bit(str(folder), four_bit, dtype=dtype).eval()


def refuse_other_values(model: Any, state: dict[str, Tensor], folder: Path) -> None:
    """CheckpointError where a folder does not give the tensors of `state`, with which the model was written to it."""
    dtype = next(parameter.dtype for parameter in model.parameters())
    again = load_adapted(str(folder), dtype=dtype).state_dict()
    for name, value in state.items():
        if name not in again or not torch.equal(again[name].cpu(), value.to(again[name].dtype).cpu()):
            problem = f"what was written to {str(folder)!r} is not what it was to be: {name} differs"
            raise CheckpointError(f"output_dir: {problem}. The checkpoints are intact. Please report it.")
