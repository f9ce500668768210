"""What a person gives (paths, globs, data-set ids, Python values) becomes named sources of documents.

Everything given is looked up before anything is read, so a mistyped name costs no time.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from afterword.corpus.columns import Origin, Record, find_columns, read_rows
from afterword.corpus.formats import ENDINGS, ending_of, read_file
from afterword.corpus.lines import unreadable
from afterword.corpus.options import CorpusOptions
from afterword.errors import DataError
from afterword.types import Document

_KNOWN = " ".join(ENDINGS) + ", each plain or .gz"
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", '."', ".”")
_TEXT_WORDS = 4  # A string of so many words that names nothing is a text, not a mistyped folder.


@dataclass(frozen=True)
class Source:
    """One thing given to read, found and ready."""

    label: str
    records: Callable[[], Iterator[Record]]
    files: int = 0
    ignored_files: dict[str, int] = field(default_factory=dict)
    """Files in the folder that are not read, counted by ending."""


def find_sources(sources: Any, options: CorpusOptions) -> list[Source]:
    """The sources behind what was given. A DataError says what was tried where there is none."""
    names = _memory_names()
    if not isinstance(sources, (list, tuple)):
        return [_find(sources, options, names)]
    if not sources:
        raise DataError("no sources: give at least one file, folder, glob or data-set id.")
    if any(isinstance(item, (Mapping, Document)) for item in sources) or _are_texts(sources):
        return [_from_values(sources, options, next(names))]
    return [_find(source, options, names) for source in sources]


def _memory_names() -> Iterator[str]:
    yield "memory"
    yield from (f"memory-{n}" for n in count(2))


def _find(source: Any, options: CorpusOptions, names: Iterator[str]) -> Source:
    if isinstance(source, (str, Path)):
        return _from_name(source, options)
    if isinstance(source, (bytes, Mapping)) or not isinstance(source, Iterable):
        raise DataError(
            f"a source of type {type(source).__name__} cannot be read. Give a path, a glob, a data-set id, "
            "one split of a data set, or a list or generator of strings, rows or Documents."
        )
    if _is_dataset(source):
        return _from_dataset(source, options, next(names))
    return _from_values(source, options, next(names))


def _from_name(source: str | Path, options: CorpusOptions) -> Source:
    name = str(source)
    path = Path(os.path.expanduser(name))
    folder, _, split = os.path.expanduser(name).partition(":")
    if os.path.lexists(path):
        return _from_path(path, name, options)
    if glob.has_magic(name) and not split:
        return _from_glob(name, options)
    if split and os.path.isdir(folder):
        return _from_data_set(folder, split, name, options)
    if isinstance(source, Path) or _looks_like_a_path(name):
        raise DataError(f"{name}: no such file or folder. Check the path.")
    return _from_data_set(folder, split, name, options)


def _looks_like_a_path(name: str) -> bool:
    beyond_an_id = name.count("/") > 1 or "\\" in name or any(c.isspace() for c in name)
    return name.startswith((".", "/", "~")) or beyond_an_id or ending_of(Path(name)) in ENDINGS


def _are_texts(items: Sequence[Any]) -> bool:
    """Whether a list of strings is documents rather than the names of some.

    Names win: one string that exists, or is written like a path, makes names of all of them.
    """
    if not all(isinstance(item, str) for item in items) or any(map(_is_a_name, items)):
        return False
    return any(
        "\n" in item or len(item.split()) >= _TEXT_WORDS or (" " in item and item.endswith(_SENTENCE_ENDS))
        for item in items
    )


def _is_a_name(item: str) -> bool:
    if "\n" in item or len(item) > 1000:
        return False
    if item.startswith(("./", "../", "/", "~")) or ending_of(Path(item)) in ENDINGS:
        return True
    return os.path.lexists(item) or ("*" in item and len(item.split()) < _TEXT_WORDS)


def _from_path(path: Path, label: str, options: CorpusOptions) -> Source:
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return _from_data_set(str(path), "", label, options)
    if path.is_dir():
        return _from_folder(path, label, options)
    if ending_of(path) not in ENDINGS:
        raise DataError(f"{path}: files of this ending are not read. The endings known are {_KNOWN}.")
    return _from_files([Origin(str(path), path.name, label, path)], label, {}, options)


def _from_folder(folder: Path, label: str, options: CorpusOptions) -> Source:
    found = [Origin(str(path), path.relative_to(folder).as_posix(), label, path) for path in _walk(folder)]
    return _from_known_files(found, label, "folder", options)


def _walk(folder: Path) -> list[Path]:
    """Files at any depth, sorted, without hidden ones. Links to folders are followed, each folder once."""

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

    seen: set[str] = set()
    paths: list[Path] = []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            paths += (Path(here, name) for name in files if not name.startswith("."))
        seen.add(real)
    return sorted(paths)


def _from_glob(pattern: str, options: CorpusOptions) -> Source:
    expanded = os.path.expanduser(pattern)
    matches = sorted(glob.glob(expanded, recursive=True))
    if not matches:
        raise DataError(f"{pattern}: no file matches this pattern. Check it, and quote it in the shell.")
    parts = Path(expanded).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    paths = [Path(match) for match in matches if not os.path.isdir(match)]
    if not paths:
        raise DataError(f"{pattern}: only folders match. To read the files in them, write {pattern}/**.")
    found = [Origin(str(path), path.relative_to(fixed).as_posix(), pattern, path) for path in paths]
    return _from_known_files(found, pattern, "pattern", options)


def _from_known_files(found: Sequence[Origin], label: str, what: str, options: CorpusOptions) -> Source:
    known = [origin for origin in found if ending_of(origin.path) in ENDINGS]
    ignored = Counter(
        ending_of(origin.path) or "no ending" for origin in found if ending_of(origin.path) not in ENDINGS
    )
    if not known:
        others = ", ".join(f"{number} of {ending}" for ending, number in sorted(ignored.items())) or "none"
        raise DataError(
            f"{label}: no documents in this {what} (other files: {others}). The endings known are {_KNOWN}."
        )
    return _from_files(known, label, dict(sorted(ignored.items())), options)


def _from_files(origins: Sequence[Origin], label: str, ignored: dict[str, int], options: CorpusOptions) -> Source:
    def records() -> Iterator[Record]:
        for origin in origins:
            yield from read_file(origin, options)

    return Source(label, records, len(origins), ignored)


def _from_values(values: Iterable[Any], options: CorpusOptions, label: str) -> Source:
    origin = Origin(label, label, label)
    return Source(label, lambda: read_rows(enumerate(values), origin, options))


def _is_dataset(value: Any) -> bool:
    from datasets import Dataset, IterableDataset

    return isinstance(value, (Dataset, IterableDataset))


def _from_data_set(name: str, split: str, label: str, options: CorpusOptions) -> Source:
    """A data-set id, a folder written by save_to_disk, or a local data-set folder."""
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    saved = os.path.isfile(f"{name}/dataset_info.json") or os.path.isfile(f"{name}/dataset_dict.json")
    try:
        named = {"split": split or None, "streaming": options.streaming}
        loaded = load_from_disk(name) if saved else load_dataset(name, **named)
    except (OSError, ValueError, RuntimeError, KeyError, DatasetsError) as error:
        tried = "" if os.path.isdir(name) else "there is no such file or folder, and "
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{label}: {tried}no data set could be loaded by this name ({reason}). "
            "Check the name and its split, written name:split."
        ) from error
    return _from_dataset(_chosen(loaded, split if saved else "", label), options, label)


def _chosen(loaded: Any, split: str, label: str) -> Any:
    """The one split that is there, or the one asked for."""
    if not isinstance(loaded, Mapping):
        if split and split != str(loaded.split):
            raise DataError(f"{label}: split {split!r} is not in this folder, which holds one split.")
        return loaded
    splits = list(loaded)
    if split in loaded or (len(splits) == 1 and not split):
        return loaded[split or splits[0]]
    base = label.partition(":")[0]
    raise DataError(f"{label}: one split has to be chosen of {', '.join(splits)}. Write it as {base}:{splits[0]}.")


def _from_dataset(dataset: Any, options: CorpusOptions, label: str) -> Source:
    origin = Origin(label, label, label)
    return Source(label, lambda: read_rows(_dataset_rows(dataset, origin, options), origin, options))


def _dataset_rows(dataset: Any, origin: Origin, options: CorpusOptions) -> Iterator[tuple[int, Any]]:
    from datasets.exceptions import DatasetsError

    if dataset.column_names:
        # Only these columns, so that no picture or sound beside the text is decoded.
        columns = find_columns(dataset.column_names, options, origin.shown)
        dataset = dataset.select_columns(list(dict.fromkeys(columns.values()))).with_format(None)
    try:
        yield from enumerate(dataset)
    except (OSError, RuntimeError, DatasetsError) as error:
        raise DataError(f"{origin.shown}: reading the data set failed: {error}") from error
