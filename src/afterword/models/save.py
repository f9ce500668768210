"""Results out: an ordinary folder, every tensor in the precision it is to have, whole or not at all.

The one rule: what is written is read again, and must say what the model in memory says. A folder that does not is
never published.
"""

import contextlib
import copy
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afterword.errors import CheckpointError
from afterword.models.backbone import causal_lm, has_adapter
from afterword.models.fixed_logits import refuse_other_values, refuse_unlike_folder
from afterword.models.merge import merged
from afterword.models.save_precision import rounds
from afterword.models.stored_precision import Precisions, StoredModel
from afterword.storage.atomic import MANIFEST, is_complete, staging_folder, write_manifest
from afterword.storage.hashes import text_sha256

_MUTE = {"_name_or_path", "base_model_name_or_path", "revision", "architectures", "auto_mapping", "task_type"}
_MUTE |= {"transformers_version", "peft_version", "dtype", "torch_dtype", "use_cache", "return_dict", "inference_mode"}
_MUTE |= {"output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type"}
"""Of a configuration, what changes nothing that the model says. (The precision is that of the weights.)"""
_TRAINERS_OWN = ("pad_token_id", "bos_token_id", "eos_token_id", "use_cache")
"""Of a configuration, what a trainer sets for its own use, by the tokenizer's or for its backward pass."""
_GENERATION = "generation_config.json"
_CARRIED = re.compile(
    r"(.*_)?(pre)?processor_config\.json|chat_template.*|additional_chat_templates|tokenizer\.model|.*\.tiktoken"
    r"|tekken\.json|special_tokens_map\.json|(LICENSE|NOTICE|USE_POLICY)(\.\w+)?",
    re.IGNORECASE,
)
"""Files of a model that belong to it and that saving a model and its tokenizer does not write."""
_CHUNK_VALUES = 2**24
"""Hashed at once: all that is copied of a weight."""


def save_result(
    model: Any,
    tokenizer: Any,
    run: Path,
    *,
    dtype: torch.dtype | Precisions,
    given: StoredModel | None = None,
    merge: bool = False,
) -> None:
    """Write the adapted model into the run folder so that `AutoModelForCausalLM.from_pretrained(run)` loads it.

    Full models are written in `dtype`, of all tensors or of each; adapters as peft writes them, and with `merge` also
    the merged model in `merged/`. `given`: the model that it was made from, whose configuration it keeps.
    """
    with result_folder(run) as folder:
        write_model(model, tokenizer, folder, dtype=dtype, given=given)
        if merge and hasattr(model, "merge_and_unload"):
            write_model(merged(model), tokenizer, folder / "merged", dtype=dtype, given=given)


@contextlib.contextmanager
def result_folder(run: Path) -> Iterator[Path]:
    """A folder for the files of a result, which are in the run folder afterwards: all of them, or none.

    The manifest appears last: without it the result does not count as written.
    """
    staging = staging_folder(run / "result")
    yield staging
    write_manifest(staging)
    (run / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(run / "merged", ignore_errors=True)
    for file in sorted(staging.iterdir(), key=lambda file: file.name == MANIFEST):
        if file.is_dir():
            shutil.rmtree(run / file.name, ignore_errors=True)
        file.replace(run / file.name)
    staging.rmdir()


def write_model(
    model: Any, tokenizer: Any, folder: Path, *, dtype: torch.dtype | Precisions, given: StoredModel | None = None
) -> None:
    """Write a model or an adapter, and read it again. CheckpointError where that says something else.

    The configuration is that of `given` in everything that a trainer changes for its own use.
    """
    precisions = dtype if isinstance(dtype, Precisions) else Precisions(dtype)
    tokenizer.save_pretrained(folder)
    if has_adapter(model):
        model.save_pretrained(folder)
        # peft leaves an empty model card; the run writes its own once it is scored.
        (folder / "README.md").unlink(missing_ok=True)
        refuse_unlike_folder(model, folder)
        return
    state, cast = dict[str, Tensor](), dict[Any, Tensor]()
    for name, value in model.state_dict().items():
        # Tied weights are cast to one tensor, or they would be written twice.
        tensor = (value.data_ptr(), value.shape)
        if tensor not in cast:
            exact = given.unrounded(name, value) if given else value
            cast[tensor] = exact.to(precisions.of(name, value))
        state[name] = cast[tensor]
    carried = given.unread(model) if given else {}
    with _configured(model, given):
        # A copy, of which save_pretrained takes what it has written.
        model.save_pretrained(folder, state_dict={**state, **carried})
        # Written again, because save_pretrained names the precision that the model is trained in.
        model.config.dtype = precisions.main
        model.config.save_pretrained(folder)
    _as_given(folder, given)
    _refuse_lost(folder, carried)
    if rounds(model, precisions):
        refuse_other_values(model, state, folder)
    else:
        refuse_unlike_folder(model, folder)


def _as_given(folder: Path, given: StoredModel | None) -> None:
    """The settings of generation as the model had them, or none where it had none; and the files of its processor.

    Also what transformers would not write of them: a person may serve it.
    """
    if given is None:
        return
    (folder / _GENERATION).unlink(missing_ok=True)
    if file := given.file(_GENERATION):
        shutil.copyfile(file, folder / _GENERATION)
    for file in (given.folder or folder).glob("*"):
        if _CARRIED.fullmatch(file.name) and not (folder / file.name).exists():
            (shutil.copytree if file.is_dir() else shutil.copyfile)(file, folder / file.name)


def _refuse_lost(folder: Path, carried: Mapping[str, Tensor]) -> None:
    """CheckpointError where tensors that were only to be carried along are not in the folder as they were."""
    written = StoredModel(str(folder))
    for name, value in carried.items():
        if name not in written or not torch.equal(written.tensor(name), value):
            problem = f"{name}, which the model does not read, would not be in the result as it was"
            raise CheckpointError(f"output_dir: {problem}. Please report it, with the model's name.")


@contextlib.contextmanager
def _configured(model: Any, given: StoredModel | None) -> Iterator[None]:
    """The configuration as it was given, in what trainers set to their own use."""
    own = model.config
    model.config = copy.deepcopy(own)
    if given:
        inner, before = model.config.get_text_config(), given.config.get_text_config()
        for name in _TRAINERS_OWN:
            if hasattr(before, name):
                setattr(inner, name, getattr(before, name))
    try:
        yield
    finally:
        model.config = own


def has_result(run: Path) -> bool:
    """Whether the run folder holds a finished, undamaged model."""
    return is_complete(run)


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
    return text_sha256(json.dumps(used, sort_keys=True, default=_in_json))


def content_sha256(model: Any) -> str:
    """SHA-256 of all that what a model says follows from: every value of its weights, and how they are used."""
    return text_sha256(weights_sha256(model.state_dict().items()) + configuration_sha256(model))


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
