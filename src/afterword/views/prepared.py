"""A corpus as windows on disk: tokenised once, memory-mapped, in an order that every process agrees on."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from afterword.corpus import Corpus
from afterword.errors import DataError
from afterword.types import Example, Skipped, Window
from afterword.views.reading import Bos, Join, Reading, SpecialTokens, read_document

_ROWS_PER_BATCH = 64
"""Windows written at a time; bounds the memory of a preparation."""
_LISTED = 1000
"""Skipped windows listed one by one; all are counted."""
_COLUMNS = {
    "document": "string",
    "source": "int32",
    "token_ids": "list<int32>",
    "sentence_starts": "list<int32>",
    "first_new_sentence": "int32",
    "is_document_end": "bool",
    "anchor_ids": "list<int32>",
}
"""Fields of a Window as they are stored; its index is the row."""


class ViewBuilder(Protocol):
    """How a window becomes an example. Implementations are frozen dataclasses whose fields are settings."""

    @property
    def join(self) -> Join:
        """How sentences are tokenised."""
        ...

    @property
    def bos(self) -> Bos:
        """Whether views begin with BOS."""
        ...

    @property
    def anchored(self) -> bool:
        """Whether windows must carry the document's title."""
        ...

    @property
    def needs_eos(self) -> bool:
        """Whether the view ends documents with EOS."""
        ...

    def skip_reason(self, window: Window) -> str | None:
        """Why a window can never be trained under this view, or None."""
        ...

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """The example of one window in one epoch."""
        ...


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
        row = _open(self.path)[index]
        # The numpy format gives arrays of what is no list, too.
        plain = {"document": str(row["document"]), "is_document_end": bool(row["is_document_end"])}
        return Window(index=index, **{**{name: row[name] for name in _COLUMNS}, **plain})

    def __iter__(self) -> Iterator[Window]:
        return (self[i] for i in range(len(self)))

    def to_json(self) -> dict[str, Any]:
        """The counts and what was skipped, as data.json has them."""
        counts = {**vars(self.counts), "skipped_windows": dict(self.counts.skipped_windows)}
        return {**counts, "skipped_windows_listed": [asdict(skipped) for skipped in self.skipped]}


_opened: dict[Path, Any] = {}


def _open(path: Path) -> Any:
    # One memory map a process and file; one for every Prepared would map it again in each worker's copy.
    if path not in _opened:
        import datasets

        _opened[path] = datasets.Dataset.from_file(str(path)).with_format("numpy")
    return _opened[path]


def prepare(
    corpus: Corpus, tokenizer: Any, special: SpecialTokens, reading: Reading, view: ViewBuilder, path: Path
) -> Prepared:
    """Read every document into windows and write those that the view can train to `path`.

    A corpus of which nothing is trainable is a DataError that says why.
    """
    counts, lengths, listed, sources = PreparedCounts(), list[int](), list[Skipped](), dict[str, int]()

    def rows() -> Iterator[dict[str, Any]]:
        for document in corpus:
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
        raise DataError(
            f"documents: none of the {len(corpus)} documents has a trainable position ({reasons or 'no text'}). The "
            "method needs documents of at least two sentences, or a token strategy; fine-tuning trains on any text."
        )
    return Prepared(path, counts, tuple(listed), np.array(lengths, np.int64), tuple(sources))


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the windows as they are trained: what a resumed run must find unchanged."""
    with prepared.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa

    types = {"string": pa.string(), "int32": pa.int32(), "bool": pa.bool_(), "list<int32>": pa.list_(pa.int32())}
    schema = pa.schema({name: types[kind] for name, kind in _COLUMNS.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, stream = path.with_suffix(".partial"), iter(rows)
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(itertools.islice(stream, _ROWS_PER_BATCH)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    os.replace(partial, path)
    _opened.pop(path, None)
