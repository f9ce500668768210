"""Folders of adapters: the base that they name, what is wrong with them, and the model that both make together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from afterword.errors import CheckpointError
from afterword.models.backbone import causal_lm
from afterword.models.checks import check_weights
from afterword.models.lookup import model_folder
from afterword.models.lora import ADAPTER_CONFIG
from afterword.named_models import unusable
from afterword.storage.parsing import parse_json

_WEIGHTS = "adapter_model.safetensors"


def is_adapter(name: str) -> bool:
    """Whether a model is called that is an adapter's folder."""
    return (Path(name).expanduser() / ADAPTER_CONFIG).is_file()


def base_of_adapter(name: str) -> str:
    """The base model that an adapter folder names. CheckpointError where it names none or cannot be read."""
    path = Path(name).expanduser() / ADAPTER_CONFIG
    try:
        base = parse_json(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = "it names no base model" if isinstance(error, KeyError) else _first_line(error)
        raise unusable(
            name, f"is an adapter whose {ADAPTER_CONFIG} cannot be read ({reason}). Copy it again."
        ) from error
    if not base or not isinstance(base, str):
        problem = f"is an adapter whose {ADAPTER_CONFIG} names no base model"
        raise unusable(name, f"{problem}. Write it there as base_model_name_or_path, or give the merged model.")
    return base


def adapter_on(load: Callable[[str], Any], name: str, *, trainable: bool = False) -> Any:
    """An adapter on its base, which `load` loads. CheckpointError where they do not belong together or lack tensors."""
    import peft

    base = base_of_adapter(name)
    try:
        below = load(base)
    except CheckpointError as error:
        problem = (
            f"is an adapter on {base!r}, which cannot be loaded: {str(error).removeprefix('model_name_or_path: ')}"
        )
        raise unusable(name, problem) from error
    folder = str(Path(name).expanduser())
    try:
        adapted = peft.PeftModel.from_pretrained(below, folder, is_trainable=trainable)
    except Exception as error:  # Like transformers, peft raises whatever it trips over.
        problem = f"is an adapter that does not fit its base {base!r} or its own configuration ({_first_line(error)})"
        raise unusable(name, f"{problem}. Copy it again, or give the merged model.") from error
    _refuse_incomplete(adapted, Path(folder), name)
    check_weights(adapted, name)
    return adapted


def _refuse_incomplete(adapted: Any, folder: Path, name: str) -> None:
    # peft leaves what is missing as it was drawn, and passes over what it does not know.
    import peft
    from safetensors import safe_open

    if not (folder / _WEIGHTS).is_file():
        raise unusable(name, f"is an adapter without {_WEIGHTS}. Copy it again, or save it as safetensors.")
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        there = set(file.keys())
    wanted = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if missing := sorted(wanted - there):
        problem = f"is an adapter that lacks {len(missing)} of its {len(wanted)} tensors ({missing[0]}, …)"
        raise unusable(name, f"{problem}. They are missing from {_WEIGHTS}: copy it again.")
    if unknown := sorted(key for key in there - wanted if "lora_" in key):
        problem = f"is an adapter with {len(unknown)} tensors that its configuration or base has no place for"
        raise unusable(
            name, f"{problem} ({unknown[0]}, …). Copy it again, with the {ADAPTER_CONFIG} that belongs to it."
        )


def merged(load: Callable[[str], Any], name: str) -> Any:
    """The ordinary model that an adapter makes of its base, merged in memory, in the precision that `load` gives."""
    adapted = adapter_on(load, name)
    untie(adapted)
    whole = adapted.merge_and_unload()
    # peft had frozen it below the adapter.
    return whole.requires_grad_(True)


def untie(adapted: Any) -> None:
    """Give an embedding with an adapter a weight of its own. The output keeps the tensor that both had.

    Merged into the weight of both, what was trained of the one would change the other.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    inner = causal_lm(adapted)
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    if isinstance(embedding, BaseTunerLayer):
        base: Any = embedding.get_base_layer()
        if base.weight is getattr(head, "weight", None):
            base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)


def adapter_folder(name: str) -> tuple[str, str]:
    """The folders of an adapter and of its base, for programs that load both themselves."""
    base = model_folder(base_of_adapter(name))
    if is_adapter(base):
        problem = f"is an adapter on {base!r}, which is an adapter too"
        raise unusable(name, f"{problem}. Merge that one first, and give the merged model.")
    return str(Path(name).expanduser()), base


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
