"""Models and tokenizers in: a folder or the hub's cache, safetensors only, with errors that a person can act on."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
    return _loaded("AutoTokenizer", "tokenizer", name)


def load_config(name: str) -> Any:
    """The configuration of a model folder or hub id."""
    return _loaded("AutoConfig", "configuration", name)


def load_model(name: str, *, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None) -> Any:
    """A causal language model with finite weights, from safetensors. Anything else is a CheckpointError."""
    _refuse_folder_without_safetensors(name)
    attention = {"attn_implementation": attn_implementation} if attn_implementation else {}
    options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True, **attention}
    model, report = _loaded("AutoModelForCausalLM", "model", name, **options)
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"model_name_or_path: the weights of {name!r} lack {', '.join(missing[:3])}, which would be random. Give a "
            "causal language model with all its weights."
        )
    check_weights(model, name)
    return model


def _loaded(auto: str, what: str, name: str, **options: Any) -> Any:
    import transformers

    _refuse_missing_folder(name)
    try:
        return getattr(transformers, auto).from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # tokenizers and safetensors raise classes that derive from nothing narrower
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        attention = options.get("attn_implementation")
        if attention and re.search("attn|attention", first, re.IGNORECASE):
            raise ConfigError(f"attn_implementation: {attention!r} cannot be used. {first}") from error
        raise CheckpointError(f"model_name_or_path: the {what} of {name!r} cannot be loaded. {first}") from error


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
    limit = getattr(config, "max_position_embeddings", None) or DEFAULT_MAX_LENGTH
    return asked or min(limit, DEFAULT_MAX_LENGTH)


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
            f"model_name_or_path: the tokenizer of {name!r} has {len(tokenizer)} tokens and the model only "
            f"{vocabulary}. "
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
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in (".bin", ".pt", ".pth"))
    problem = "has no weights (no *.safetensors file). Copy the weights beside its config.json."
    if pickles:
        problem = (
            f"has its weights only as pickles ({', '.join(pickles[:3])}), which can run code when they are read. "
            "Convert them: load the model in a safe place and save_pretrained(…, safe_serialization=True)."
        )
    raise CheckpointError(f"model_name_or_path: the folder {name!r} {problem}")
