"""Results out: an ordinary folder in the input model's precision, whole or not at all."""

import copy
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from afterword.models.backbone import causal_lm
from afterword.models.loading import load_config
from afterword.models.manifest import MANIFEST, is_complete, staging_folder, write_manifest

_MUTE = {"_name_or_path", "base_model_name_or_path", "revision", "architectures", "auto_mapping", "task_type"}
_MUTE |= {"transformers_version", "peft_version", "dtype", "torch_dtype", "use_cache", "return_dict", "inference_mode"}
_MUTE |= {"output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type"}
"""Of a configuration, what changes nothing that the model says. (The precision is that of the weights.)"""
_CHUNK_VALUES = 2**24
"""Hashed at once: all that is copied of a weight."""


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


def result_dtype(name: str, asked: Literal["float32", "bf16"] | None) -> torch.dtype:
    """The precision that a result is saved in: the one asked for, else that of the model `name` that it came from."""
    known = {"float32": torch.float32, "bf16": torch.bfloat16}
    return known[asked] if asked else saved_dtype(load_config(name))


def saved_dtype(config: Any) -> torch.dtype:
    """The precision a model was saved in; results are saved in it again."""
    return getattr(config, "dtype", None) or torch.float32


def weights_fingerprint(model: Any) -> str:
    """Short hash that tells one model from another: names, shapes, and 4,096 values of every weight.

    A sample, in whatever precision the weights are held: what must not be taken for anything else is told by
    `content_sha256`. How the weights are used is no part of it (`configuration_sha256`).
    """
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        stride = max(1, value.numel() // 4096)
        if value.dim() > 1 and value.shape[-1] > 1 and stride % value.shape[-1] == 0:
            # Whole rows apart, all of them would be of the first column.
            stride += 1
        sampled = value.detach().flatten()[::stride].float().cpu().numpy()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sampled.tobytes())
    return digest.hexdigest()[:16]


def configuration_sha256(model: Any, *, adapted: bool = True) -> str:
    """SHA-256 of how a model's weights are used: its configuration and those of its adapters.

    As transformers and peft read them, with what they fill in; without what changes nothing that the model says.
    `adapted=False`: as if it had no adapter.
    """
    adapters = getattr(model, "peft_config", {}) if adapted else {}
    used = [_used(config.to_dict()) for config in (causal_lm(model).config, *adapters.values())]
    return hashlib.sha256(json.dumps(used, sort_keys=True, default=_in_json).encode()).hexdigest()


def content_sha256(model: Any) -> str:
    """SHA-256 of all that what a model says follows from: every value of its weights, and how they are used."""
    content = weights_sha256(model.state_dict().items()) + configuration_sha256(model)
    return hashlib.sha256(content.encode()).hexdigest()


def weights_sha256(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of every value of named tensors, in the precision that they are held in, whatever their order."""
    digest = hashlib.sha256()
    for name, value in sorted(weights, key=lambda named: named[0]):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        for chunk in value.detach().flatten().split(_CHUNK_VALUES):
            digest.update(chunk.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _used(config: Mapping[str, Any]) -> dict[str, Any]:
    # None is what is not there: a version that knows more settings reads no other configuration for it.
    used = {name: value for name, value in config.items() if name not in _MUTE and value is not None}
    return {name: _used(value) if isinstance(value, Mapping) else value for name, value in used.items()}


def _in_json(value: Any) -> Any:
    # Sets, such as peft's names of modules, have another order in every process.
    return sorted(value) if isinstance(value, set) else str(value)


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
