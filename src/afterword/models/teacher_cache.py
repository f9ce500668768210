"""What a teacher says of texts, on the disk: computed once, looked up by what it reads.

A cache is a folder: shards of rows (safetensors, memory-mapped when they are read), one row for every position of
every text that it holds, and index.json, which says what they follow from and which texts each shard has. A text is
named by the SHA-256 of its tokens, BOS included. The one rule: only what the index lists counts. A shard is written
beside its place, renamed, and then listed; what a killed process wrote and did not list is written again.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword.errors import CheckpointError
from afterword.models.backbone import causal_lm, has_adapter, name_below
from afterword.models.going_on import as_given, goes_on
from afterword.models.save import weights_sha256
from afterword.storage.atomic import STAGING_SUFFIX, flush, replace_file
from afterword.storage.hashes import file_sha256, json_sha256
from afterword.storage.parsing import parse_json

INDEX = "index.json"
SHARD_MIB = 256
"""Size at which a shard is closed; its last text may go beyond."""
_FORMAT = 3
_ROWS = "rows"


def text_key(token_ids: np.ndarray) -> str:
    """The name of a text [n] of tokens: what a teacher says of it follows from nothing else."""
    return hashlib.sha256(token_ids.astype("<i8").tobytes()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Everything that a cache's rows follow from, but the texts."""

    model: str
    """SHA-256 of every value of the teacher's weights, in the precision that it reads in."""
    configuration: str
    """SHA-256 of how they are used."""
    precision: str
    """Of the weights, and of autocast."""

    def named(self) -> str:
        """A folder's name that no other origin has."""
        return json_sha256(asdict(self))[:16]


_DIFFERENT = {
    "model": "another model",
    "configuration": "another model configuration (config.json)",
    "precision": "another precision",
}


@dataclass(frozen=True)
class Shard:
    """A file of the cache, and the texts whose rows it holds, in order."""

    file: str
    sha256: str
    texts: tuple[tuple[str, int], ...]
    """Key of each, and its number of rows."""


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """A cache as it was found; picklable, and every process maps the files itself."""

    folder: Path
    origin: Origin
    shards: tuple[Shard, ...] = ()
    about: str = ""
    """Type and width of the rows, once there are some."""

    @functools.cached_property
    def _places(self) -> dict[str, tuple[Shard, int, int]]:
        """Shard, first row and number of rows of every text."""
        places: dict[str, tuple[Shard, int, int]] = {}
        for shard in self.shards:
            first = 0
            for key, rows in shard.texts:
                places[key] = (shard, first, rows)
                first += rows
        return places

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, key: str, positions: np.ndarray) -> Tensor:
        """[n, ·]: what the teacher says at these positions of a text that is in the cache."""
        shard, first, rows = self._places[key]
        assert positions.max(initial=0) < rows, "positions are of the text"
        return _mapped(self.folder / shard.file, shard.sha256)[torch.as_tensor(first + positions)]

    def with_shard(self, keys: Sequence[str], rows: Sequence[Tensor]) -> "TeacherCache":
        """The cache with a shard more, written and listed: of every text its rows."""
        from safetensors.torch import save_file

        path, joined = self.folder / f"{len(self.shards):05d}.safetensors", torch.cat(list(rows)).contiguous()
        partial = path.with_name(path.name + STAGING_SUFFIX)
        save_file({_ROWS: joined}, partial)
        flush(partial)
        texts = tuple((key, len(each)) for key, each in zip(keys, rows, strict=True))
        shard = Shard(path.name, file_sha256(partial), texts)
        os.replace(partial, path)
        flush(self.folder)
        about = f"{str(joined.dtype).removeprefix('torch.')}, {joined.shape[1]} wide"
        return replace(self, shards=(*self.shards, shard), about=about).written()

    def written(self) -> "TeacherCache":
        """Itself, once its index says what it is."""
        listed = [asdict(shard) for shard in self.shards]
        layout = "a row for every token of a text; a shard's texts one after another, named by the SHA-256 of their ids"
        said = {"origin": asdict(self.origin), "rows": self.about, "layout": layout}
        index = {"format": _FORMAT, **said, "shards": listed}
        replace_file(self.folder / INDEX, json.dumps({**index, "sha256": json_sha256(index)}))
        return self


def open_cache(folder: Path, origin: Origin) -> TeacherCache:
    """The cache in a folder, or an empty one in a folder that holds none.

    A cache of something else, or one that is damaged, is a CheckpointError.
    """
    # A file that was deleted keeps its space for as long as it is mapped.
    _mapped.cache_clear()
    if not (folder / INDEX).exists():
        folder.mkdir(parents=True, exist_ok=True)
        return TeacherCache(folder, origin).written()
    try:
        index = dict(parse_json((folder / INDEX).read_text(encoding="utf-8")))
        written = index.pop("sha256", None)
        if index.get("format", _FORMAT) != _FORMAT:
            raise _damaged(folder, f"{INDEX} is by another version of afterword")
        found = Origin(**{each.name: index["origin"][each.name] for each in fields(Origin)})
        shards = tuple(
            Shard(each["file"], each["sha256"], tuple((key, rows) for key, rows in each["texts"]))
            for each in index["shards"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{INDEX} cannot be read") from error
    if other := [said for name, said in _DIFFERENT.items() if getattr(found, name) != getattr(origin, name)]:
        problem = f"teacher_cache: {str(folder)!r} holds what was said by or of {' and '.join(other)}"
        raise CheckpointError(f"{problem}. Give another folder, or delete this one to have it made again.")
    if written != json_sha256(index):
        # What a hash of the shards alone does not tell: which text a row is of.
        raise _damaged(folder, f"{INDEX} is not as it was written")
    for shard in shards:
        if not (folder / shard.file).is_file() or file_sha256(folder / shard.file) != shard.sha256:
            raise _damaged(folder, f"{shard.file} is missing or not as it was written")
    return TeacherCache(folder, origin, shards, index["rows"])


def given_fingerprint(model: Any) -> str:
    """SHA-256 of every value of a model's weights as it was given: a new adapter on it changes nothing."""
    if not goes_on(model):
        return weights_sha256(_given_weights(model))
    with as_given(model):
        return weights_sha256(_given_weights(model))


def _given_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names that they have without peft, and none of its own but of an adapter that goes on."""
    weights = causal_lm(model).state_dict().items()
    if not has_adapter(model) or goes_on(model):
        yield from weights
        return
    for name, value in weights:
        if "lora_" not in name and ".modules_to_save." not in name:
            yield name_below(name), value


def _damaged(folder: Path, why: str) -> CheckpointError:
    remedy = "Delete the folder to have it made again."
    return CheckpointError(f"teacher_cache: the cache in {str(folder)!r} is damaged: {why}. {remedy}")


@functools.cache
def _mapped(path: Path, sha256: str) -> Tensor:
    """The rows of a file, read only where they are asked for. The hash tells a file from another of its name."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(_ROWS)
