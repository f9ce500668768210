"""What a teacher says of texts, on the disk: computed once, looked up by text and position.

A cache is a folder: shards of rows (safetensors, memory-mapped when they are read), one row for every position of
every text that it holds, and index.json, which says what they follow from and which texts each shard has. The one
rule: only what the index lists counts. A shard is written beside its place, renamed, and then listed; what a killed
process wrote and did not list is written again.
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
from afterword.models.backbone import causal_lm
from afterword.models.save import weights_sha256
from afterword.storage.atomic import STAGING_SUFFIX, _flush, replace_file
from afterword.storage.hashes import file_sha256
from afterword.storage.parsing import parse_json

INDEX = "index.json"
SHARD_MIB = 256
"""Size at which a shard is closed; its last text may go beyond."""
_ROWS = "rows"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Everything that a cache's rows follow from."""

    model: str
    """SHA-256 of every value of the teacher's weights, in the precision that it reads in."""
    configuration: str
    """SHA-256 of how they are used."""
    precision: str
    """Of the weights, and of autocast."""
    tokenizer: str
    """SHA-256 of the vocabulary."""
    bos_ids: tuple[int, ...]
    texts: str
    """SHA-256 of the texts' token ids, without BOS."""
    rows: str
    """What a row is."""

    def named(self) -> str:
        """A folder's name that no other origin has."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


_DIFFERENT = {
    "model": "another model",
    "configuration": "another model configuration (config.json)",
    "precision": "another precision",
    "tokenizer": "another tokenizer",
    "bos_ids": "another BOS",
    "texts": "other documents",
    "rows": "another kind of rows",
}


@dataclass(frozen=True)
class Shard:
    """A file of the cache, and the texts whose rows it holds, in order."""

    file: str
    sha256: str
    texts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """A cache as it was found; picklable, and every process maps the files itself."""

    folder: Path
    origin: Origin
    lengths: np.ndarray  # [texts] rows of each
    shards: tuple[Shard, ...] = ()
    about: str = ""
    """Type and width of the rows, once there are some."""

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """[texts, 2]: shard and first row of every text; −1 where it is not there."""
        places = np.full((len(self.lengths), 2), -1, np.int64)
        for number, shard in enumerate(self.shards):
            texts = np.array(shard.texts)
            places[texts] = np.stack([np.full(len(texts), number), _firsts(self.lengths[texts])], axis=-1)
        return places

    def missing(self, texts: np.ndarray) -> np.ndarray:
        """Those of these texts that it does not hold."""
        return texts[self._places[texts, 0] < 0]

    def rows(self, text: int, positions: np.ndarray) -> Tensor:
        """[n, ·]: what the teacher says at these positions of a text."""
        number, first = self._places[text].tolist()
        assert number >= 0, "everything that is read was cached"
        assert positions.max(initial=0) < self.lengths[text], "positions are of the text's full reading"
        shard = self.shards[number]
        return _mapped(self.folder / shard.file, shard.sha256)[torch.from_numpy(first + positions)]

    def with_shard(self, texts: Sequence[int], rows: Sequence[Tensor]) -> "TeacherCache":
        """The cache with a shard more, written and listed."""
        from safetensors.torch import save_file

        assert [len(each) for each in rows] == self.lengths[list(texts)].tolist()
        path, joined = self.folder / f"{len(self.shards):05d}.safetensors", torch.cat(list(rows)).contiguous()
        partial = path.with_name(path.name + STAGING_SUFFIX)
        save_file({_ROWS: joined}, partial)
        _flush(partial)
        shard = Shard(path.name, file_sha256(partial), tuple(texts))
        os.replace(partial, path)
        _flush(self.folder)
        about = f"{str(joined.dtype).removeprefix('torch.')}, {joined.shape[1]} wide"
        return replace(self, shards=(*self.shards, shard), about=about)._written()

    def _written(self) -> "TeacherCache":
        """Itself, once its index says what it is."""
        listed = [{"file": shard.file, "sha256": shard.sha256, "texts": shard.texts} for shard in self.shards]
        layout = "a row for every position of BOS and text; a shard's texts one after another"
        index = {"format": 2, "origin": asdict(self.origin), "rows": self.about, "layout": layout, "shards": listed}
        replace_file(self.folder / INDEX, json.dumps({**index, "sha256": _own_sha256(index)}))
        return self


def open_cache(folder: Path, origin: Origin, lengths: np.ndarray) -> TeacherCache:
    """The cache in a folder, or an empty one in a folder that holds none.

    A cache of something else, or one that is damaged, is a CheckpointError.
    """
    # A file that was deleted keeps its space for as long as it is mapped.
    _mapped.cache_clear()
    if not (folder / INDEX).exists():
        folder.mkdir(parents=True, exist_ok=True)
        return TeacherCache(folder, origin, lengths)._written()
    try:
        index = dict(parse_json((folder / INDEX).read_text(encoding="utf-8")))
        written = index.pop("sha256", None)
        found = {**index["origin"], "bos_ids": tuple(index["origin"]["bos_ids"])}
        shards = tuple(Shard(each["file"], each["sha256"], tuple(each["texts"])) for each in index["shards"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{INDEX} cannot be read") from error
    if other := [_DIFFERENT[f.name] for f in fields(Origin) if found.get(f.name) != getattr(origin, f.name)]:
        problem = f"teacher_cache: {str(folder)!r} holds what was said by or of {' and '.join(other)}"
        raise CheckpointError(f"{problem}. Give another folder, or delete this one to have it made again.")
    if written != _own_sha256(index):
        # What a hash of the shards alone does not tell: which text a row is of.
        raise _damaged(folder, f"{INDEX} is not as it was written, or by an earlier version")
    for shard in shards:
        if not (folder / shard.file).is_file() or file_sha256(folder / shard.file) != shard.sha256:
            raise _damaged(folder, f"{shard.file} is missing or not as it was written")
    return TeacherCache(folder, origin, lengths, shards, index["rows"])


def _own_sha256(index: dict[str, Any]) -> str:
    """Of all that an index says, whatever its layout."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def given_fingerprint(model: Any) -> str:
    """SHA-256 of every value of a model's weights as it was given: an adapter on it changes nothing."""
    return weights_sha256(_given_weights(model))


def _given_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names that they have without peft, and none of its own."""
    weights = causal_lm(model).state_dict().items()
    if not hasattr(model, "disable_adapter"):
        yield from weights
        return
    for name, value in weights:
        if "lora_" not in name and ".modules_to_save." not in name:
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), value


def _damaged(folder: Path, why: str) -> CheckpointError:
    remedy = "Delete the folder to have it made again."
    return CheckpointError(f"teacher_cache: the cache in {str(folder)!r} is damaged: {why}. {remedy}")


def _firsts(lengths: np.ndarray) -> np.ndarray:
    return lengths.cumsum() - lengths


@functools.cache
def _mapped(path: Path, sha256: str) -> Tensor:
    """The rows of a file, read only where they are asked for. The hash tells a file from another of its name."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(_ROWS)
