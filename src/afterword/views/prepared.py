"""A corpus as windows on disk: tokenised once, memory-mapped, in an order that every process agrees on."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from afterword.corpus import Corpus
from afterword.errors import DataError
from afterword.types import Example, Skipped, Window
from afterword.views.reading import Reading, SpecialTokens, read_document

_ROWS_PER_BATCH = 64
"""Windows written at a time; bounds the memory of a preparation."""
_LISTED = 1000
"""Skipped windows listed one by one; all are counted."""


class ViewBuilder(Protocol):
    """How a window becomes an example. Implementations are frozen dataclasses whose fields are settings."""

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


@dataclass(frozen=True)
class PreparedCounts:
    """What reading a corpus came to. Every number of a dry run and of data.json that is about windows."""

    documents: int
    """Documents with at least one trainable window."""
    windows: int
    tokens: int
    """In windows, overlaps counted every time they are read."""
    split_documents: int
    """Documents longer than the context, read in several windows."""
    cut_sentences: int
    cut_anchors: int
    skipped: dict[str, int]
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
        return Window(index=index, **{name: row[name] for name in _COLUMNS})

    def __iter__(self) -> Iterator[Window]:
        return (self[i] for i in range(len(self)))

    def to_json(self) -> dict[str, Any]:
        """The counts and what was skipped, as data.json has them."""
        rows = [asdict(skipped) for skipped in self.skipped]
        counts = asdict(self.counts)
        return {
            **{name: counts[name] for name in ("windows", "tokens", "split_documents", "cut_sentences")},
            "cut_anchors": self.counts.cut_anchors,
            "skipped_windows": self.counts.skipped,
            "skipped_windows_listed": rows,
        }


_COLUMNS = ("document", "source", "token_ids", "sentence_starts", "first_new_sentence", "is_document_end", "anchor_ids")
_opened: dict[Path, Any] = {}


def _open(path: Path) -> Any:
    # One memory map a process and file; a data set of its own for every Prepared would map it again in
    # every copy that is sent to a worker.
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
    tally = _Tally()
    partial = path.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    _write(partial, _rows(corpus, tokenizer, special, reading, view, tally))
    os.replace(partial, path)
    _opened.pop(path, None)
    counts = tally.counts()
    if not counts.windows:
        raise DataError(
            f"documents: none of the {len(corpus)} documents has a trainable position "
            f"({_reasons(counts.skipped)}). The method needs documents of at least two sentences, or a token "
            "strategy; fine-tuning trains on any text."
        )
    lengths = np.array(tally.lengths, np.int64)
    return Prepared(path, counts, tuple(tally.listed), lengths, tuple(tally.sources))


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the windows as they are trained: what a resumed run must find unchanged."""
    with prepared.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Tally:
    """Counts kept while rows stream by."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.sources: dict[str, int] = {}
        self.listed: list[Skipped] = []
        self.skipped: Counter[str] = Counter()
        self.documents = self.split = self.cut_sentences = self.cut_anchors = 0

    def skip(self, window: Window, source: str, reason: str) -> None:
        self.skipped[reason] += 1
        if len(self.listed) < _LISTED:
            tokens = f"{len(window.token_ids)} tokens, {len(window.sentence_starts)} sentences"
            self.listed.append(Skipped(source, window.document, reason, tokens))

    def counts(self) -> PreparedCounts:
        return PreparedCounts(
            documents=self.documents,
            windows=len(self.lengths),
            tokens=sum(self.lengths),
            split_documents=self.split,
            cut_sentences=self.cut_sentences,
            cut_anchors=self.cut_anchors,
            skipped=dict(self.skipped),
        )


def _rows(
    corpus: Corpus, tokenizer: Any, special: SpecialTokens, reading: Reading, view: ViewBuilder, tally: _Tally
) -> Iterator[dict[str, Any]]:
    for document in corpus:
        source = tally.sources.setdefault(document.source, len(tally.sources))
        read = read_document(document, source, tokenizer, special, reading)
        tally.split += len(read.windows) > 1
        tally.cut_sentences += read.cut_sentences
        tally.cut_anchors += read.cut_anchor
        kept = 0
        for window in read.windows:
            if reason := view.skip_reason(window):
                tally.skip(window, document.source, reason)
                continue
            kept += 1
            tally.lengths.append(len(window.token_ids))
            yield {name: getattr(window, name) for name in _COLUMNS}
        tally.documents += kept > 0


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    schema = pa.schema(
        {
            "document": pa.string(),
            "source": pa.int32(),
            "token_ids": ids,
            "sentence_starts": ids,
            "first_new_sentence": pa.int32(),
            "is_document_end": pa.bool_(),
            "anchor_ids": ids,
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _ROWS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                batch.clear()
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))


def _reasons(skipped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in skipped.items()) or "no text"
