"""A corpus as windows on disk: tokenised once, memory-mapped, in an order that every process agrees on."""

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from afterword.corpus import Corpus
from afterword.errors import DataError
from afterword.types import Document, Skipped, Window
from afterword.views.examples import ViewBuilder
from afterword.views.reading import Reading, SpecialTokens, read_document

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
    skipped_windows: Counter[str] = field(default_factory=Counter[str])
    """Windows that this view cannot train, by reason."""


@dataclass(frozen=True)
class Prepared:
    """Windows in an Arrow file, memory-mapped. Picklable: workers open the file themselves."""

    path: Path
    counts: PreparedCounts
    skipped: tuple[Skipped, ...]
    lengths: np.ndarray  # [windows] int64, tokens
    sources: tuple[str, ...]
    """Names of the sources that windows and losses are counted by."""

    def __len__(self) -> int:
        return self.counts.windows

    def __getitem__(self, index: int) -> Window:
        return Window(index=index, **_opened(self.path)[index])

    def to_json(self) -> dict[str, Any]:
        """The counts and what was skipped, as data.json has them."""
        return {**vars(self.counts), "skipped_windows_listed": [asdict(skipped) for skipped in self.skipped]}


@functools.cache
def _opened(path: Path) -> Any:
    # One memory map a process and file; one for every Prepared would map it again in each worker's copy.
    import datasets

    arrays = [name for name, kind in _COLUMNS.items() if kind == "np.ndarray"]
    return datasets.Dataset.from_file(str(path)).with_format("numpy", arrays, output_all_columns=True)


def prepare(
    corpus: Corpus,
    tokenizer: Any,
    special: SpecialTokens,
    reading: Reading,
    view: ViewBuilder,
    path: Path,
    *,
    render: Callable[[Document], Document] = lambda document: document,
) -> Prepared:
    """Read every document, as `render` has it, into windows and write those that the view can train to `path`.

    A corpus of which nothing is trainable is a DataError that says why.
    """
    counts, lengths, listed, sources = PreparedCounts(), list[int](), list[Skipped](), dict[str, int]()

    def rows() -> Iterator[dict[str, Any]]:
        """Windows as they are read, counted in passing."""
        for document in map(render, corpus):
            source = sources.setdefault(document.source, len(sources))
            read = read_document(document, source, tokenizer, special, reading)
            counts.split_documents += len(read.windows) > 1
            counts.cut_sentences += read.cut_sentences
            counts.cut_anchors += read.cut_anchor
            reasons = [view.skip_reason(window) for window in read.windows]
            counts.trained_documents += None in reasons
            for window, reason in zip(read.windows, reasons, strict=True):
                if reason is None:
                    lengths.append(len(window.token_ids))
                    yield {name: getattr(window, name) for name in _COLUMNS}
                    continue
                counts.skipped_windows[reason] += 1
                if len(listed) < _LISTED:
                    size = f"{len(window.token_ids)} tokens, {len(window.sentence_starts)} sentences"
                    listed.append(Skipped(document.source, document.id, reason, size))

    _write(path, rows())
    counts.windows, counts.tokens = len(lengths), sum(lengths)
    if not lengths:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.skipped_windows.items())
        problem = f"none of the {len(corpus)} documents has a trainable position ({reasons or 'no text'})"
        raise DataError(f"documents: {problem}. Give two sentences or more, or use a token strategy or fine-tuning.")
    return Prepared(path, counts, tuple(listed), np.array(lengths, np.int64), tuple(sources))


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the windows as they are trained: what a resumed run must find unchanged."""
    with prepared.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int32(), "bool": pa.bool_(), "np.ndarray": pa.list_(pa.int32())}
    schema = pa.schema({name: types[kind] for name, kind in _COLUMNS.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(itertools.islice(rows, _ROWS_PER_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    partial.replace(path)
    _opened.cache_clear()
