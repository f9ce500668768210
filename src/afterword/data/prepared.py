"""A corpus as windows on disk: tokenised once, memory-mapped, in an order that every process agrees on."""

import contextlib
import functools
import itertools
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from afterword.corpus import Corpus
from afterword.data import stored
from afterword.data.control_tokens import ControlTokens
from afterword.data.reading_ahead import Read, Reader, Rendering, read_ahead, workers_for
from afterword.data.views import View
from afterword.data.windows import SpecialTokens, WindowSettings
from afterword.errors import DataError
from afterword.storage.locks import held
from afterword.types import Skipped, Window

_ROWS_PER_BATCH = 64
"""Windows written at a time; bounds the memory of a preparation."""
_LISTED = 1000
"""Skipped windows listed one by one; all are counted."""
_COLUMNS = {field.name: str(field.type) for field in fields(Window) if field.name != "index"}
"""Fields of a Window as they are stored, with their types; its index is the row."""


@dataclass
class PreparedCounts:
    """What reading a corpus came to. Every number of a dry run and of data.json that is about windows."""

    trained_documents: int = 0
    """Documents with at least one trainable window."""
    windows: int = 0
    tokens: int = 0
    """In windows, overlaps counted every time they are read."""
    split_documents: int = 0
    """Documents longer than the context, read in several windows."""
    cut_sentences: int = 0
    cut_anchors: int = 0
    control_tokens: int = 0
    """Control tokens of the model that documents write out."""
    control_token_documents: int = 0
    skipped_windows: Counter[str] = field(default_factory=Counter[str])
    """Windows that this view cannot train, by reason."""


@dataclass(frozen=True)
class Prepared:
    """Windows in an Arrow file, memory-mapped. Picklable: workers open the file themselves."""

    path: Path
    counts: PreparedCounts
    skipped: tuple[Skipped, ...]
    lengths: np.ndarray  # [windows] int64, tokens of the text, without BOS and EOS
    ends: np.ndarray  # [windows] bool, whether a window is the end of its document
    sources: tuple[str, ...]
    """Names of the sources that windows and losses are counted by."""
    control_tokens: ControlTokens = "text"
    """What became of control tokens in documents."""
    from_cache: bool = False
    """Whether another run had prepared them."""

    def __len__(self) -> int:
        return self.counts.windows

    def __getitem__(self, index: int) -> Window:
        number, row = divmod(index, _ROWS_PER_BATCH)
        batch = _opened(self.path)[number]
        return Window(index=index, **{name: _value(batch.column(name)[row]) for name in _COLUMNS})

    def largest_token(self) -> int:
        """The largest id in any window. Reads all of them."""
        columns = [batch.column(name) for batch in _opened(self.path) for name in ("token_ids", "anchor_ids")]
        return max((int(column.values.to_numpy().max(initial=0)) for column in columns), default=0)

    def to_json(self) -> dict[str, Any]:
        """The counts and what was skipped, as data.json has them."""
        listed = [asdict(skipped) for skipped in self.skipped]
        said = {**vars(self.counts), "skipped_windows_listed": listed, "windows_from_cache": self.from_cache}
        return said | {"control_tokens_are": self.control_tokens}


@functools.cache
def _opened(path: Path) -> list[Any]:
    """The file's record batches, of _ROWS_PER_BATCH windows each."""
    # One memory map a process and file; one for every Prepared would map it again in each worker's copy.
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return list(stream)


def _value(cell: Any) -> Any:
    ids = getattr(cell, "values", None)
    return cell.as_py() if ids is None else ids.to_numpy().astype(np.int64)


def prepare(
    corpus: Corpus,
    tokenizer: Any,
    special: SpecialTokens,
    window_settings: WindowSettings,
    view: View,
    path: Path,
    *,
    render: Rendering | None = None,
    workers: int | None = None,
    cache: Path | None = None,
) -> Prepared:
    """Read every document, as `render` has it, into windows and write those that the view can train to `path`.

    `workers` processes read, 0 or 1: this one, None: as many as pay. Windows that follow from the same are not read
    again: they are at `path` already, or in `cache`, a folder for all runs. None of it changes a byte of the file.

    A corpus of which nothing is trainable is a DataError that says why.
    """
    reader = Reader(corpus, tokenizer, special, window_settings, view, render)
    key = stored.fingerprint(reader)
    limit = stored.cache_limit()
    entry = cache / f"{key}.arrow" if key and cache and _writable(cache) else None
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever comes first reads; the other processes, of this run or of others, wait and find it.
    with held((entry or path).with_suffix(".lock"), "reads the same documents"):
        here = stored.find(path, key)
        cached = stored.fetch(entry, key, path) if entry and not here else None
        said = here or cached or _read(reader, path, workers_for(corpus) if workers is None else workers)
        if not here and not cached:
            stored.keep(path, key, said)
            if entry:
                with _unless_full(entry.parent):
                    stored.offer(path, entry, limit)
    return _prepared(path, said, reader, from_cache=cached is not None)


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the windows as they are trained: what a resumed run must find unchanged."""
    return stored.file_sha256(prepared.path)


def _writable(cache: Path) -> bool:
    with _unless_full(cache):
        cache.mkdir(parents=True, exist_ok=True)
        # Tried, not asked: os.access says yes to root also where the file system says no.
        tempfile.TemporaryFile(dir=cache).close()
        return True
    return False


@contextlib.contextmanager
def _unless_full(cache: Path) -> Iterator[None]:
    """A run needs no cache: where it cannot be written, that is said, and the windows are only the run's own."""
    try:
        yield
    except OSError as error:
        problem = f"preparation_cache: {str(cache)!r} cannot be written ({error.strerror or error})"
        warnings.warn(f"{problem}. The next run reads its documents anew. Give another folder, or off.", stacklevel=4)


def _read(reader: Reader, path: Path, workers: int) -> dict[str, Any]:
    """Write the windows to `path`; what there is to say of them, as JSON has it: counts, and what was skipped."""
    counts, listed = PreparedCounts(), list[tuple[int, str, str, str]]()

    def rows(reads: Iterator[Read]) -> Iterator[dict[str, Any]]:
        """Windows as they are read, counted in passing."""
        for each in reads:
            if each.read is None:
                reason, detail = (each.refused.reason, each.refused.detail) if each.refused else ("refused", "")
                counts.skipped_windows[reason] += 1
                if len(listed) < _LISTED:
                    listed.append((each.source, each.document, reason, detail))
                continue
            windows = each.read.windows
            counts.split_documents += len(windows) > 1
            counts.cut_sentences += each.read.cut_sentences
            counts.cut_anchors += each.read.cut_anchor
            counts.control_tokens += each.read.control_tokens
            counts.control_token_documents += each.read.control_tokens > 0
            counts.trained_documents += None in each.skip_reasons
            for window, reason in zip(windows, each.skip_reasons, strict=True):
                if reason is None:
                    counts.windows, counts.tokens = counts.windows + 1, counts.tokens + len(window.token_ids)
                    yield {name: getattr(window, name) for name in _COLUMNS}
                    continue
                counts.skipped_windows[reason] += 1
                if len(listed) < _LISTED:
                    size = f"{len(window.token_ids)} tokens, {len(window.sentence_starts)} sentences"
                    listed.append((each.source, each.document, reason, size))

    with contextlib.closing(read_ahead(reader, workers)) as reads:
        _write(path, rows(reads))
    if not counts.windows:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.skipped_windows.items())
        count = len(reader.corpus)
        problem = f"none of the {count} documents has a trainable position ({reasons or 'no text'})"
        raise DataError(f"documents: {problem}. Give two sentences or more, or use a token strategy or fine-tuning.")
    return {"counts": vars(counts) | {"skipped_windows": dict(counts.skipped_windows)}, "skipped": listed}


def _prepared(path: Path, said: dict[str, Any], reader: Reader, *, from_cache: bool) -> Prepared:
    """Windows at `path`, of which `said` is all that they do not say themselves. Names are this corpus's own."""
    _opened.cache_clear()
    sources = tuple(reader.sources)
    counts = PreparedCounts(**{**said["counts"], "skipped_windows": Counter(said["counts"]["skipped_windows"])})
    skipped = tuple(Skipped(sources[number], *rest) for number, *rest in said["skipped"])
    lengths = np.concatenate([np.diff(batch.column("token_ids").offsets) for batch in _opened(path)]).astype(np.int64)
    ends = np.concatenate([batch.column("is_document_end").to_numpy(zero_copy_only=False) for batch in _opened(path)])
    how = reader.window_settings.control_tokens
    return Prepared(path, counts, skipped, lengths, ends, sources, how, from_cache)


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int32(), "bool": pa.bool_(), "np.ndarray": pa.list_(pa.int32())}
    schema = pa.schema({name: types[kind] for name, kind in _COLUMNS.items()})
    with (
        stored.one_move(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        while batch := list(itertools.islice(rows, _ROWS_PER_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
