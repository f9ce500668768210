"""Models and tokenizers in: from a folder or the hub's cache, safetensors only, with errors that a person can act on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from afterword.errors import CheckpointError, ConfigError
from afterword.models.checks import check_weights

DEFAULT_MAX_LENGTH = 8192
"""Context where the model allows more: longer documents are read in windows. Ours; METHODS gives none."""
ADAPTER_CONFIG = "adapter_config.json"


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model folder or hub id."""
    from transformers import AutoTokenizer

    _refuse_missing_folder(name)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(_cannot_load(name, "tokenizer", error)) from error


def load_config(name: str) -> Any:
    """The configuration of a model folder or hub id."""
    from transformers import AutoConfig

    _refuse_missing_folder(name)
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(_cannot_load(name, "configuration", error)) from error


def load_model(name: str, *, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None) -> Any:
    """A causal language model with finite weights, from safetensors. Anything else is a CheckpointError."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    _refuse_missing_folder(name)
    _refuse_folder_without_safetensors(name)
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if attn_implementation and "attention" in str(error).lower().replace("attn", "attention"):
            first = str(error).strip().splitlines()[0]
            raise ConfigError(f"attn_implementation: {attn_implementation!r} cannot be used. {first}") from error
        raise CheckpointError(_cannot_load(name, "model", error)) from error
    check_weights(model, name)
    return model


def load_adapted(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """The result of a run as it would be served: a full model, or a base with its adapter on it."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        return load_model(name, dtype=dtype)
    import peft

    base = load_model(base_of_adapter(name), dtype=dtype)
    adapted = peft.PeftModel.from_pretrained(base, name)
    check_weights(adapted, name)
    return adapted


def base_of_adapter(name: str) -> str:
    """The base model that an adapter folder names."""
    config = json.loads((Path(name) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return config["base_model_name_or_path"]


def saved_dtype(config: Any) -> torch.dtype:
    """The precision a model was saved in; results are saved in it again."""
    return getattr(config, "dtype", None) or torch.float32


def context_length(config: Any, asked: int | None = None) -> int:
    """How many tokens a view may have: what was asked, else the model's limit up to DEFAULT_MAX_LENGTH."""
    limit = getattr(config, "max_position_embeddings", None)
    if asked is not None:
        return asked
    return min(limit or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)


def weights_fingerprint(model: Any) -> str:
    """Short hash that tells one model from another: names, shapes, and 4,096 values of every weight."""
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        flat = value.detach().flatten()
        sampled = flat[:: max(1, flat.numel() // 4096)].float().cpu().numpy()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(sampled.tobytes())
    return digest.hexdigest()[:16]


def refuse_foreign_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """CheckpointError where the tokenizer knows tokens that the model has no embedding for."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise CheckpointError(
            f"model_name_or_path: the tokenizer of {name!r} has {len(tokenizer)} tokens and the model only {vocabulary}. "
            "They do not belong together; give the model its own tokenizer."
        )


def _refuse_missing_folder(name: str) -> None:
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(name)
    path = Path(name).expanduser()
    if looks_like_path and not path.is_dir():
        raise CheckpointError(
            f"model_name_or_path: {name!r} is no folder. Give a folder with config.json and safetensors weights, "
            "or the id of a model on the hub."
        )
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", ADAPTER_CONFIG)):
        raise CheckpointError(
            f"model_name_or_path: the folder {name!r} has no config.json, so it holds no model. "
            "Give a folder written by save_pretrained."
        )


def _refuse_folder_without_safetensors(name: str) -> None:
    path = Path(name).expanduser()
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"model_name_or_path: {name!r} has its weights only as pickles ({', '.join(pickles[:3])}), which can run "
            "code when they are read. Convert them: load the model in a safe place and "
            "save_pretrained(…, safe_serialization=True)."
        )
    raise CheckpointError(
        f"model_name_or_path: the folder {name!r} has no weights (no *.safetensors file). Copy the weights beside "
        "its config.json."
    )


def _cannot_load(name: str, what: str, error: BaseException) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"model_name_or_path: the {what} of {name!r} cannot be loaded. {first}"
