"""Results out: an ordinary folder in the input model's precision, whole or not at all."""

import copy
import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch

from afterword.models.manifest import MANIFEST, is_complete, staging_folder, write_manifest


def save_result(model: Any, tokenizer: Any, run: Path, *, dtype: torch.dtype, merge: bool = False) -> None:
    """Write the adapted model into the run folder so that `AutoModelForCausalLM.from_pretrained(run)` loads it.

    Full models are written in `dtype`; adapters as peft writes them, and with `merge` also the merged model
    in `merged/`. The manifest appears last: without it the result does not count as written.
    """
    staging = staging_folder(run / "result")
    _save(model, tokenizer, staging, dtype)
    if merge and hasattr(model, "merge_and_unload"):
        _save(model.merge_and_unload(), tokenizer, staging / "merged", dtype)
    write_manifest(staging)
    (run / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(run / "merged", ignore_errors=True)
    for file in sorted(staging.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(run / file.name)
    staging.rmdir()


def has_result(run: Path) -> bool:
    """Whether the run folder holds a finished, undamaged model."""
    return is_complete(run)


def saved_dtype(config: Any) -> torch.dtype:
    """The precision a model was saved in; results are saved in it again."""
    return getattr(config, "dtype", None) or torch.float32


def weights_fingerprint(model: Any) -> str:
    """Short hash that tells one model from another: names, shapes, and 4,096 values of every weight."""
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        sampled = value.detach().flatten()[:: max(1, value.numel() // 4096)].float().cpu().numpy()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sampled.tobytes())
    return digest.hexdigest()[:16]


def _save(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    tokenizer.save_pretrained(folder)
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        # peft leaves an empty model card; the run writes its own once it is scored.
        (folder / "README.md").unlink(missing_ok=True)
        return
    state, cast = {}, {}
    for name, value in model.state_dict().items():
        # Tied weights are cast to one tensor, or they would be written twice.
        tensor = (value.data_ptr(), value.shape)
        state[name] = cast.setdefault(tensor, value.to(dtype) if value.is_floating_point() else value)
    model.save_pretrained(folder, state_dict=state)
    # Written again, because save_pretrained names the precision that the model is trained in.
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.save_pretrained(folder)
