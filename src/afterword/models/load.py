"""Models and tokenizers in: a folder or the hub's cache, safetensors only, with errors that a person can act on."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from afterword.distributed import brings_back
from afterword.errors import CheckpointError, ConfigError
from afterword.models.adapters import adapter_on, base_of_adapter, is_adapter, merged
from afterword.models.backbone import backbone_of
from afterword.models.checks import check_weights
from afterword.models.heap import keep_freed_memory
from afterword.models.lookup import model_folder
from afterword.models.lora import ADAPTER_CONFIG
from afterword.models.teachable import refuse_pointers, refuse_unteachable
from afterword.named_models import GGUF, out_of_reach, unusable
from afterword.storage.hub import hub_answers

COMPUTED = ("inv_freq", ".masked_bias", ".attn.bias", ".attention.bias", "position_ids", "cos_cached", "sin_cached")
"""Ends of the names of tensors that old files hold although they follow from the configuration."""
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def load_tokenizer(name: str) -> Any:
    """The tokenizer of anything that `model_folder` finds; of an adapter without one, that of its base."""
    folder = model_folder(name)
    if is_adapter(folder) and not any((Path(folder) / file).is_file() for file in _TOKENIZER):
        return load_tokenizer(base_of_adapter(folder))
    return _loaded("AutoTokenizer", "tokenizer", folder)


def load_config(name: str) -> Any:
    """The configuration of anything that `model_folder` finds; of an adapter, that of its base."""
    folder = model_folder(name)
    if is_adapter(folder):
        return load_config(base_of_adapter(folder))
    config = _loaded("AutoConfig", "configuration", folder)
    refuse_unteachable(config, name)
    return config


def load_model(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    device_map: str | Mapping[str, str] | None = None,
    quantization_config: Any = None,
) -> Any:
    """A causal language model with finite weights, from safetensors. Anything else is a CheckpointError.

    An adapter's folder is the model that it makes of its base: merged in float32, then in `dtype`. With `device_map`
    "auto" it is spread over the machine's devices, and can then only be read. `quantization_config` is for
    `four_bit.load_in_4bit`, which checks what cannot be checked here.
    """
    folder = model_folder(name)
    if is_adapter(folder):
        load = partial(load_model, dtype=torch.float32, attn_implementation=attn_implementation)
        return merged(load, folder).to(dtype)
    load_config(name)
    keep_freed_memory()
    _load_whole()
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "output_loading_info": True}
    options |= {"device_map": device_map} if device_map else {}
    options |= {"quantization_config": quantization_config} if quantization_config else {}
    model, report = _loaded("AutoModelForCausalLM", "model", folder, use_safetensors=True, **options)
    if missing := sorted(report["missing_keys"]):
        problem = f"lacks the weights {', '.join(missing[:3])}, which would be random"
        raise unusable(name, f"{problem}. Give a causal language model with all its weights.")
    if unused := sorted(key for key in report["unexpected_keys"] if not key.endswith(COMPUTED)):
        problem = f"has {len(unused)} weights that its configuration does not use ({', '.join(unused[:3])}, …)"
        raise unusable(name, f"{problem}. Give weights and config.json that belong together.")
    check_weights(model, name)
    _make_writable(model)
    if isinstance(device_map, str):
        # Whoever calls it alone, past the model, has what it gives where the token ids were.
        brings_back(backbone_of(model))
    return model


def parameter_count(name: str) -> int:
    """The parameters of a model, tied ones once, from its configuration alone."""
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(load_config(name), trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())


def load_adapted(name: str, *, dtype: torch.dtype = torch.float32, device_map: str | None = None) -> Any:
    """The result of a run as it would be served: a full model, or a base with its adapter on it."""
    folder, load = model_folder(name), partial(load_model, dtype=dtype, device_map=device_map)
    return adapter_on(load, folder) if is_adapter(folder) else load(name)


def _make_writable(model: Any) -> None:
    """Leave out what transformers reads of the settings of generation but does not write: values of no effect.

    No checkpoint could be written with them. A result has the settings as they were given.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    try:
        generation.validate(strict=True)
    except ValueError:
        ids = {name: getattr(generation, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = type(generation)(**ids)


def _loaded(auto: str, what: str, folder: str, **options: Any) -> Any:
    """By transformers. `folder` may be an id on the hub, which is asked only where it answers."""
    import transformers

    _refuse_folder(folder, weights="use_safetensors" in options)
    local = os.path.isdir(folder) or not hub_answers()
    try:
        loader = getattr(transformers, auto)
        return loader.from_pretrained(folder, trust_remote_code=False, local_files_only=local, **options)
    except Exception as error:  # tokenizers and safetensors raise classes that derive from nothing narrower
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if (kernel := options.get("attn_implementation")) and re.search("attn|attention", first, re.IGNORECASE):
            raise ConfigError(f"attn_implementation: {kernel!r} cannot be used. {first}") from error
        if local and not os.path.isdir(folder):
            raise out_of_reach(folder) from error
        raise CheckpointError(f"model_name_or_path: the {what} of {folder!r} cannot be loaded. {first}") from error


def _load_whole() -> None:
    """While a DeepSpeed configuration is alive, transformers would give every process a shard of the model."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def _refuse_folder(name: str, *, weights: bool) -> None:
    path = Path(name)
    if not path.is_dir():
        return
    refuse_pointers(path, name)
    files = {file.name for file in path.iterdir()}
    if not files & {"config.json", ADAPTER_CONFIG}:
        if ggufs := sorted(file for file in files if file.lower().endswith(GGUF)):
            raise unusable(name, f"holds GGUF files and no config.json. Give one of the files: {path / ggufs[0]}")
        raise unusable(name, "has no config.json, so it holds no model. Give a folder written by save_pretrained.")
    if weights and not any(file.endswith(".safetensors") for file in files):
        if pickles := ", ".join(sorted(file for file in files if file.endswith((".bin", ".pt", ".pth")))[:3]):
            problem = f"has its weights only as pickles ({pickles}), which can run code when they are read"
            raise unusable(name, f"{problem}. Convert them: load it in a safe place, and save_pretrained.")
        raise unusable(name, "has no weights (no *.safetensors file). Copy the weights beside its config.json.")
