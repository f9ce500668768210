"""A model's files as they are: the precision of every tensor from the headers, and values one tensor at a time.

The one rule: nothing here holds the weights of a model. A tensor is read where it is asked for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from afterword.models.adapters import base_of_adapter, is_adapter
from afterword.models.load import COMPUTED, load_config
from afterword.models.lookup import model_folder

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_NAMES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Floating precisions, as safetensors names them."""


@dataclass(frozen=True)
class StoredModel:
    """The model `name` (folder, embedded model or hub id in the cache) on the disk; of an adapter, its base."""

    name: str

    @cached_property
    def config(self) -> Any:
        """Its configuration, as its file has it."""
        return load_config(self.name)

    @cached_property
    def dtype(self) -> torch.dtype:
        """What its configuration says; where it says nothing, what most of its values are in."""
        if given := getattr(self.config, "dtype", None):
            return given
        return max(set(self.dtypes.values()), key=list(self.dtypes.values()).count, default=torch.float32)

    @cached_property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The precision of every floating tensor, by its name in the files."""
        found = dict[str, torch.dtype]()
        for path in dict.fromkeys(self._places.values()):
            header = _header(path)
            found |= {key: _NAMES[entry["dtype"]] for key, entry in header.items() if entry["dtype"] in _NAMES}
        return found

    def file(self, name: str) -> Path | None:
        """One of its files, or None where it has no such file."""
        found = model_folder(self.name)
        if is_adapter(found):
            return StoredModel(base_of_adapter(found)).file(name)
        if (folder := Path(found)).is_dir():
            return folder / name if (folder / name).is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(found, name, _raise_exceptions_for_missing_entries=False, local_files_only=True)
        return Path(found) if found else None

    @property
    def folder(self) -> Path | None:
        """Where its files are, or None where it has none here."""
        config = self.file("config.json")
        return config.parent if config else None

    def unread(self, model: Any) -> dict[str, Tensor]:
        """Tensors of the files that the class of a model in memory leaves out on purpose, as they are.

        Heads that predict several tokens ahead, for one, which whoever serves the model may use.
        """
        patterns = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
        left = [key for key in self._places if any(re.search(pattern, key) for pattern in patterns)]
        read = model.state_dict().keys()
        return {key: self.tensor(key) for key in left if key not in read and not key.endswith(COMPUTED)}

    def tensor(self, key: str) -> Tensor:
        """Values by their name in the files."""
        with safe_open(self._places[key], framework="pt") as file:
            return file.get_tensor(key)

    def unrounded(self, key: str, value: Tensor) -> Tensor:
        """A tensor of a model in memory, or what the files have of it, where that is this with more digits.

        A model that is trained in bfloat16 holds so what its files have in float32, also what no step has changed.
        """
        stored = self.dtypes.get(key)
        if stored is None or torch.finfo(stored).eps >= torch.finfo(value.dtype).eps:
            return value
        own = self.tensor(key).to(value.device)
        return own if torch.equal(own.to(value.dtype), value) else value

    def __contains__(self, key: str) -> bool:
        return key in self._places

    @cached_property
    def _places(self) -> dict[str, Path]:
        """The file of every tensor, by its name there."""
        if index := self.file(_INDEX):
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {key: path for key, file in named.items() if (path := self.file(file))}
        path = self.file(_WEIGHTS)
        return dict.fromkeys(_header(path), path) if path else {}


@dataclass(frozen=True)
class Precisions:
    """The precision that every tensor of a model is saved in."""

    main: torch.dtype
    """What the configuration says, and what tensors are in that are not named."""
    others: Mapping[str, torch.dtype] = field(default_factory=dict[str, torch.dtype])
    """By the names of a model in memory, those of tensors that are in another."""

    def of(self, name: str, value: Tensor) -> torch.dtype:
        """Of a named tensor; integers stay what they are."""
        return self.others.get(name, self.main) if value.is_floating_point() else value.dtype


def stored_precisions(model: Any, stored: StoredModel) -> Precisions:
    """The precision of every tensor of a model in memory as its files have it: a bias that is float32 stays so.

    Where several tensors of the files are one in memory (experts), it is the widest of theirs.
    """
    others = dict[str, torch.dtype]()
    for name, value in model.state_dict().items():
        keys = pieces(model, name, value, stored) if value.is_floating_point() else {}
        dtypes = [stored.dtypes[key] for key in keys if key in stored.dtypes]
        if dtypes and (widest := min(dtypes, key=lambda dtype: torch.finfo(dtype).eps)) != stored.dtype:
            others[name] = widest
    return Precisions(stored.dtype, others)


def pieces(model: Any, name: str, value: Tensor, stored: StoredModel) -> dict[str, Tensor]:
    """A tensor of a model in memory as the tensors that the files have of it, by their names there.

    Nothing where the files have none of this name, as of a head that is tied, or where several tensors in memory
    are one in the files.
    """
    if name in stored:
        return {name: value}
    from transformers.core_model_loading import revert_weight_conversion

    try:
        found = revert_weight_conversion(model, {name: value})
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError):
        # What transformers cannot take apart alone: it is one of several that are one in the files.
        return {}
    return {key: piece for key, piece in found.items() if key in stored}


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return {key: entry for key, entry in json.loads(file.read(size)).items() if key != "__metadata__"}
