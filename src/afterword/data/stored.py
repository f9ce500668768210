"""Windows that were prepared before, found again by everything that they follow from.

A file of windows has a record beside it. The one rule: a file counts only where its record is of the same
fingerprint and the file is as the record says, byte by byte. The file comes first and its record last, each in one
move, so that what a killed process left does not count.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from afterword.data.reading_ahead import Reader
from afterword.errors import ConfigError
from afterword.storage.paths import cache_folder

PREPARATION = 2
"""Raised whenever this package would make other windows of the same documents, or writes them in another way."""
_READ_BY = ("sentencex", "tokenizers", "transformers")
"""Libraries whose versions may move a sentence or a token."""
_RECORD = ".json"


def default_cache() -> Path | None:
    """`prepared` in $AFTERWORD_CACHE, else in ~/.cache/afterword; None where the variable says off."""
    return cache_folder("prepared")


def cache_limit() -> int:
    """Bytes that a cache may take: $AFTERWORD_CACHE_GIB, else 20 GiB."""
    given = os.environ.get("AFTERWORD_CACHE_GIB", "20")
    with contextlib.suppress(ValueError, OverflowError):
        if (limit := float(given)) >= 0:
            return round(limit * 2**30)
    raise ConfigError(f"AFTERWORD_CACHE_GIB: must be a number of GiB from 0 on, got {given!r}. Leave it out for 20.")


def fingerprint(reader: Reader) -> str | None:
    """SHA-256 of everything that the windows follow from.

    None where that cannot be told: a slow tokenizer has no serialised form, and code of others has no version.
    """
    of_others = not _is_of(reader.tokenizer, "transformers") or not _is_of(reader.view, "afterword")
    if of_others or not reader.tokenizer.is_fast:
        return None
    follows_from = {
        "preparation": PREPARATION,
        "versions": [importlib.metadata.version(name) for name in _READ_BY],
        "documents": reader.corpus.content_sha256,
        "sources": _sources_sha256(reader),
        "tokenizer": _tokenizer_sha256(reader.tokenizer),
        "special": asdict(reader.special),
        "reading": asdict(reader.window_settings),
        "view": [type(reader.view).__qualname__, asdict(reader.view)],
        "render": reader.render.identity if reader.render else None,
    }
    return _sha256(follows_from)


def _is_of(thing: Any, package: str) -> bool:
    return type(thing).__module__.partition(".")[0] == package


def _sources_sha256(reader: Reader) -> str:
    """Of which document is of which source: their numbers are in the windows, their names are not."""
    names = reader.corpus.dataset.data.column("source").to_pylist()
    return hashlib.sha256(np.array([reader.sources[name] for name in names], np.int64).tobytes()).hexdigest()


def _tokenizer_sha256(tokenizer: Any) -> str:
    """Of a fast tokenizer: how it cuts text, its special tokens, its chat template."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call happened to ask for; documents are read whole and alone.
    del core["truncation"], core["padding"]
    special = [str(tokenizer.special_tokens_map), getattr(tokenizer, "split_special_tokens", None)]
    return _sha256([type(tokenizer).__qualname__, core, *special, tokenizer.chat_template])


def find(path: Path, key: str | None) -> Any:
    """What was recorded of a file of windows that is whole and of this fingerprint; None otherwise."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.with_suffix(_RECORD).read_text(encoding="utf-8"))
        same = key is not None and record["key"] == key and record["said_sha256"] == _sha256(record["said"])
        if same and record["file_sha256"] == file_sha256(path):
            return record["said"]
    return None


def keep(path: Path, key: str | None, said: Any) -> None:
    """Record what a file of windows is, so that it is found again. Without a fingerprint, it is not."""
    if key is None:
        return
    record = {"key": key, "file_sha256": file_sha256(path), "said_sha256": _sha256(said), "said": said}
    with one_move(path.with_suffix(_RECORD)) as partial:
        partial.write_text(json.dumps(record), encoding="utf-8")


def fetch(entry: Path, key: str | None, path: Path) -> Any:
    """The windows of a cache at `path`, and what was recorded of them; None where the cache has no such.

    The file at `path` stays when the cache's own is removed: it is a link where the disk allows one, else a copy.
    """
    if (said := find(entry, key)) is None:
        return None
    # Removed by another process in this moment: it is not there, then.
    with contextlib.suppress(FileNotFoundError):
        _duplicate(entry, path)
        _duplicate(entry.with_suffix(_RECORD), path.with_suffix(_RECORD))
        os.utime(entry.with_suffix(_RECORD))  # Used now: of what is removed for space, the last.
        return said
    return None


def offer(path: Path, entry: Path, limit: int) -> None:
    """Put windows and their record into a cache, and remove what was not used for longest beyond `limit` bytes."""
    _duplicate(path, entry)
    _duplicate(path.with_suffix(_RECORD), entry.with_suffix(_RECORD))
    _trim(entry.parent, limit)


def _trim(folder: Path, limit: int) -> None:
    """Remove entries, the one that was used longest ago first, until the rest takes at most `limit` bytes."""
    entries: dict[str, list[Path]] = defaultdict(list)
    for path in folder.iterdir():
        entries[path.stem].append(path)
    sizes, used = dict[str, int](), dict[str, float]()
    for name, paths in entries.items():
        with contextlib.suppress(FileNotFoundError):  # Removed by another process in this moment.
            stats = [inside.stat() for path in paths for inside in (path, *path.rglob("*"))]
            sizes[name], used[name] = sum(s.st_size for s in stats), max(s.st_mtime for s in stats)
    whole = sum(sizes.values())
    for name in sorted(sizes, key=used.__getitem__):
        if whole <= limit:
            return
        # The record before the file: what is left of an entry never counts.
        for path in sorted(entries[name], key=lambda path: path.suffix != _RECORD):
            if path.is_dir():  # What a killed process left.
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        whole -= sizes[name]


def _duplicate(source: Path, place: Path) -> None:
    with one_move(place) as partial:
        try:
            os.link(source, partial)
        except FileNotFoundError:
            raise
        except OSError:  # Another disk, or one without links.
            shutil.copyfile(source, partial)


@contextlib.contextmanager
def one_move(place: Path) -> Iterator[Path]:
    """A path of this process's own to write; then it has its name, at once. Safe with several processes."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=place.parent) as hidden:
        partial = Path(hidden) / place.name
        yield partial
        os.replace(partial, place)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
