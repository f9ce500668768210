"""What a person gives (paths, globs, data-set ids, Python values) becomes named sources of documents.

Everything given is looked up before anything is read, so a mistyped name costs no time.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from afterword.corpus.columns import CorpusOptions, columns_to_read, read_rows
from afterword.corpus.dialogues import Kind
from afterword.corpus.folders import OFFICE, Aside, chosen, counted, judged, remedy_of, walk, without_ours
from afterword.corpus.formats import ENDINGS, ROW_ENDINGS, Reader, readers_of_others
from afterword.corpus.rows import Origin, Record, Rows, numbered
from afterword.errors import AfterwordError, DataError
from afterword.storage.files import BadRowError, ending_of, shown_name
from afterword.storage.hub import hub_answers, hub_is_offline, is_hub_id
from afterword.storage.paths import neighbour
from afterword.types import Document


@dataclass
class SourceReport:
    """What one source gave. The counts grow as it is read."""

    source: str
    """As given: a path, a glob, a data-set id, or `memory`."""
    documents: int = 0
    characters: int = 0
    files: int = 0
    """Files of known endings that were found."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows and documents that were not used, by reason."""
    renamed_ids: int = 0
    """Documents whose id was taken by another text, and got `#2`, `#3`, …"""
    aside: Aside = field(default_factory=Aside)
    """What of a folder was not read, by name."""

    @property
    def ignored_files(self) -> Counter[str]:
        """Files in the folder whose ending is not read, by ending."""
        return self.aside.ignored_files

    def to_json(self) -> dict[str, Any]:
        """What data.json says of it."""
        counts = {name: value for name, value in asdict(self).items() if name != "aside"}
        aside = {"ignored_files": dict(self.ignored_files), "ignored_folders": self.aside.ignored_folders}
        return {**counts, **aside, "named_files": self.aside.named}


Source = tuple[SourceReport, Iterator[Record]]
"""One thing given to read, found and ready. Its records can be read once."""


def find_sources(sources: Any, options: CorpusOptions) -> list[Source]:
    """The sources behind what was given. A DataError says what was tried where there is none."""
    given = [sources] if not isinstance(sources, (list, tuple)) or _are_documents(sources) else sources
    if not given:
        raise DataError("no sources: give at least one file, folder, glob or data-set id.")
    labels = chain(["memory"], (f"memory-{n}" for n in count(2)))
    return [_find(source, labels, options) for source in given]


def refuse_missing(sources: Iterable[str]) -> None:
    """DataError for a name that leads nowhere, by the name alone: nothing is read or loaded."""
    for given in sources:
        name = os.path.expanduser(given)
        if not os.path.lexists(name) and not os.path.isdir(name.partition(":")[0]) and not glob.has_magic(name):
            _refuse_nowhere(given)


def _refuse_nowhere(given: str | Path) -> None:
    """DataError where a name that is no file or folder cannot be that of a data set either."""
    label, name = str(given), os.path.expanduser(str(given))
    folder, _, split = name.partition(":")
    # One word is a folder that is mistyped: a data set of the hub is named with its owner or its split.
    one_word = "/" not in folder and not split
    if isinstance(given, Path) or _is_written_like_a_path(name) or one_word or not is_hub_id(folder):
        hub = " A data set on the hub is written owner/name or name:split." if one_word and is_hub_id(folder) else ""
        raise DataError(f"{label}: no such file or folder. {neighbour(name)}Check the path.{hub}")
    if not hub_is_offline() and not hub_answers():
        problem = "no such file or folder, and no data set could be loaded by this name: the hub does not answer"
        remedy = "Check the name or the network; with HF_HUB_OFFLINE=1 what is in its cache is read"
        raise DataError(f"{label}: {problem}. {neighbour(folder)}{remedy}.")


def _are_documents(items: Sequence[Any]) -> bool:
    """Whether a list is documents rather than the names of some. A string of some words that is no path is a text.

    Four words are some: no mistyped folder has so many. Names win: one string that exists, or is written like a path,
    makes names of all of them.
    """
    if not all(isinstance(item, str) for item in items):
        return any(isinstance(item, (Mapping, Document)) for item in items)
    long = any("\n" in item or len(item.split()) >= 4 for item in items)
    return long and not any(_is_written_like_a_path(item) or os.path.lexists(item) for item in items)


def _is_written_like_a_path(name: str) -> bool:
    return name.startswith(("./", "../", "/", "~")) or ending_of(Path(name)) in _readers()


def _readers(kind: Kind = "documents") -> dict[str, Reader]:
    """By ending, what reads a file. No format of others takes the place of one of ours."""
    return {**readers_of_others(), **ENDINGS} if kind == "documents" else ROW_ENDINGS


def _known(kind: Kind) -> str:
    """The endings that are read."""
    endings = _readers(kind)
    plain = [ending for ending in endings if ending in ENDINGS and ending not in OFFICE]
    packed = [ending for ending in endings if ending not in plain]
    listed = f"Known for {kind}: {' '.join(plain)} (plain or .gz)"
    listed += f", {' '.join(packed)} (not .gz)" if packed else ""
    own = "; a format of your own can be added (docs/ADD_A_FORMAT.md)" if kind == "documents" else ""
    return f"{listed}{own}."


def _something(records: Iterator[Record], origin: Origin) -> Iterator[Record]:
    """The records of a file; of one whose reader gives none, that it is empty."""
    first = next(records, None)
    if first is None:
        yield BadRowError("empty", "nothing is in it"), origin.shown, origin.name
    else:
        yield from chain([first], records)


def _from_name(given: str | Path, options: CorpusOptions) -> Source:
    label, name = str(given), os.path.expanduser(str(given))
    folder, _, split = (name, "", "") if os.path.lexists(name) else name.partition(":")
    if _is_saved(folder) or (split and os.path.isdir(folder)):
        return _from_data_set(folder, split, label, options)
    aside = Aside()
    if os.path.isdir(name):
        return _from_files(walk(name, options, aside), name, label, options, aside)
    if os.path.lexists(name):
        return _from_file(name, label, options)
    if glob.has_magic(name) and not split:
        files, base = sorted(map(Path, glob.glob(name, recursive=True))), re.split(r"[^/\\]*[*?[]", name)[0]
        files = without_ours([path for path in files if not path.is_dir()], base, options, aside)
        return _from_files(files, base, label, options, aside)
    _refuse_nowhere(given)
    return _from_data_set(folder, split, label, options)


def _from_files(paths: list[Path], base: str, label: str, options: CorpusOptions, aside: Aside) -> Source:
    endings = _readers(options.kind)
    known = chosen(paths, endings, aside)
    if not known:
        remedy = f"{_known(options.kind)} A pattern has to be quoted in the shell."
        others = ", ".join(f"{count} of {ending}" for ending, count in aside.ignored_files.items()) or "none"
        raise DataError(f"{label}: no file of a known ending (others: {others}{remedy_of(aside)}). {remedy}")
    beside_texts = any(ending_of(path) not in ROW_ENDINGS for path in known)

    def records(path: Path) -> Iterator[Record]:
        """What is in one of the files."""
        name = shown_name(path.relative_to(base).as_posix())
        origin = Origin(shown_name(path), name, shown_name(label), str(path))
        rows = judged(endings[ending_of(path)](origin, options), origin, options, aside, beside_texts=beside_texts)
        lenient = options.skip_bad_rows or (beside_texts and ending_of(path) == ".json")
        return counted(_something(read_rows(rows, origin, options), origin), origin, aside, lenient=lenient)

    return SourceReport(shown_name(label), files=len(known), aside=aside), chain.from_iterable(map(records, known))


def _from_file(path: str, label: str, options: CorpusOptions) -> Source:
    """A file that was named: it is what it was named for, or an error."""
    endings = _readers(options.kind)
    ending = ending_of(Path(path))
    if ending not in endings:
        problem = f"its ending {ending} is not known" if ending else "it has no ending that says what it is"
        extra = " pip install 'afterword[documents]' reads it." if ending in OFFICE else ""
        raise DataError(f"{label}: {problem}.{extra} {_known(options.kind)}")
    origin = Origin(shown_name(path), shown_name(os.path.basename(path)), shown_name(label), path)
    rows = read_rows(endings[ending](origin, options), origin, options)
    return SourceReport(shown_name(label), files=1), _something(rows, origin)


def _find(source: Any, labels: Iterator[str], options: CorpusOptions) -> Source:
    if isinstance(source, (str, Path)):
        return _from_name(source, options)
    if isinstance(source, (bytes, Mapping)) or not isinstance(source, Iterable):
        remedy = "Give a path, a glob, a data-set id, one split of a data set, or a list or generator of texts or rows."
        raise DataError(f"a source of type {type(source).__name__} cannot be read. {remedy}")
    label = next(labels)
    return SourceReport(label), read_rows(_value_rows(source, label, options), Origin(label, label, label), options)


def _value_rows(values: Any, label: str, options: CorpusOptions) -> Rows:
    from datasets.exceptions import DatasetsError

    if getattr(values, "column_names", None):
        values = values.select_columns(columns_to_read(values.column_names, options, label)).with_format(None)
    try:
        yield from _decoded(values)
    except AfterwordError:
        # What makes the rows says itself what is wrong.
        raise
    except (OSError, UnicodeDecodeError, RuntimeError, DatasetsError) as error:
        raise DataError(f"{label}: the rows could not be read to the end: {error}") from error


def _decoded(values: Any) -> Rows:
    """Rows with their numbers. One that is not UTF-8 is a bad row where the others can be asked for by number."""
    if not hasattr(values, "select_columns") or not hasattr(values, "__getitem__"):
        yield from numbered(values)
        return
    given = 0
    try:
        for place, row in numbered(values):
            yield place, row
            given += 1
    except UnicodeDecodeError:
        for number in range(given, len(values)):
            try:
                row = values[number]
            except UnicodeDecodeError as error:
                row = BadRowError("undecodable", f"not valid UTF-8 ({error})")
            yield f"row {number}", row


def _is_saved(folder: str) -> bool:
    """Whether save_to_disk of datasets wrote this folder."""
    return any(os.path.isfile(f"{folder}/{mark}") for mark in ("dataset_info.json", "dataset_dict.json"))


def load_split(name: str, split: str, label: str, options: CorpusOptions) -> Any:
    """The rows of a data-set id, of a folder written by save_to_disk, or of a local data-set folder.

    DataError where there is none, or where one of several splits has to be chosen.
    """
    from datasets import load_dataset, load_from_disk

    try:
        named = {"split": split or None, "streaming": options.streaming}
        # save_to_disk writes each split to a folder of its name.
        loaded: Any = load_from_disk(os.path.join(name, split)) if _is_saved(name) else load_dataset(name, **named)
    except Exception as error:  # Whatever a library of readers for everything finds wrong.
        problem = f"there is no such file or folder, and no data set could be loaded by this name ({error!s:.200})"
        raise DataError(f"{label}: {problem}. Check the name and its split, written name:split.") from error
    splits = loaded if isinstance(loaded, Mapping) else {split: loaded}
    if len(splits) != 1:
        remedy = f"Write it as {label}:{next(iter(splits), 'train')}."
        raise DataError(f"{label}: one split has to be chosen of {', '.join(splits)}. {remedy}")
    return next(iter(splits.values()))


def _from_data_set(name: str, split: str, label: str, options: CorpusOptions) -> Source:
    return _find(load_split(name, split, label, options), iter([label]), options)
