"""Models and tokenizers in: a folder or the hub's cache, safetensors only, with errors that a person can act on."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from afterword.embedded import model_folder
from afterword.errors import CheckpointError, ConfigError
from afterword.models.checks import check_weights, unusable
from afterword.models.lora import ADAPTER_CONFIG


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model folder, an embedded model or a hub id."""
    return _loaded("AutoTokenizer", "tokenizer", name)


def load_config(name: str) -> Any:
    """The configuration of a model folder, an embedded model or a hub id."""
    return _loaded("AutoConfig", "configuration", name)


def load_model(name: str, *, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None) -> Any:
    """A causal language model with finite weights, from safetensors. Anything else is a CheckpointError."""
    _load_whole()
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "output_loading_info": True}
    model, report = _loaded("AutoModelForCausalLM", "model", name, use_safetensors=True, **options)
    if missing := sorted(report["missing_keys"]):
        problem = f"lacks the weights {', '.join(missing[:3])}, which would be random"
        raise unusable(name, f"{problem}. Give a causal language model with all its weights.")
    check_weights(model, name)
    return model


def parameter_count(name: str) -> int:
    """The parameters of a model, tied ones once, from its configuration alone."""
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(load_config(name), trust_remote_code=False)
    return sum(parameter.numel() for parameter in model.parameters())


def load_adapted(name: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """The result of a run as it would be served: a full model, or a base with its adapter on it."""
    if not (Path(name) / ADAPTER_CONFIG).is_file():
        return load_model(name, dtype=dtype)
    import peft

    adapted = peft.PeftModel.from_pretrained(load_model(base_of_adapter(name), dtype=dtype), name)
    check_weights(adapted, name)
    return adapted


def base_of_adapter(name: str) -> str:
    """The base model that an adapter folder names."""
    return json.loads((Path(name) / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]


def _loaded(auto: str, what: str, name: str, **options: Any) -> Any:
    import transformers

    name = model_folder(name)
    _refuse_folder(name, weights="use_safetensors" in options)
    try:
        return getattr(transformers, auto).from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # tokenizers and safetensors raise classes that derive from nothing narrower
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if (kernel := options.get("attn_implementation")) and re.search("attn|attention", first, re.IGNORECASE):
            raise ConfigError(f"attn_implementation: {kernel!r} cannot be used. {first}") from error
        raise CheckpointError(f"model_name_or_path: the {what} of {name!r} cannot be loaded. {first}") from error


def _load_whole() -> None:
    """While a DeepSpeed configuration is alive, transformers would give every process a shard of the model."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def _refuse_folder(name: str, *, weights: bool) -> None:
    path = Path(name).expanduser()
    if not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
            raise unusable(name, "is no folder. Give a folder with config.json and safetensors, or an id on the hub.")
        return
    files = {file.name for file in path.iterdir()}
    if not files & {"config.json", ADAPTER_CONFIG}:
        raise unusable(name, "has no config.json, so it holds no model. Give a folder written by save_pretrained.")
    if weights and not any(file.endswith(".safetensors") for file in files):
        if pickles := ", ".join(sorted(file for file in files if file.endswith((".bin", ".pt", ".pth")))[:3]):
            problem = f"has its weights only as pickles ({pickles}), which can run code when they are read"
            raise unusable(name, f"{problem}. Convert them: load it in a safe place, and save_pretrained.")
        raise unusable(name, "has no weights (no *.safetensors file). Copy the weights beside its config.json.")
