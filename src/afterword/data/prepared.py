"""A corpus as windows on disk: tokenised once, memory-mapped, in an order that every process agrees on."""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from afterword.corpus import Corpus
from afterword.data.control_tokens import ControlTokens
from afterword.data.passages import NO_PASSAGES, read_passages
from afterword.data.views import View
from afterword.data.windows import ReadDocument, SpecialTokens, WindowSettings, read_document
from afterword.errors import DataError, number_of
from afterword.storage.atomic import one_move, replace_file
from afterword.storage.hashes import file_sha256
from afterword.storage.parsing import parse_json
from afterword.types import Document, Skipped, Window

_ROWS_PER_BATCH = 64
"""Windows written at a time; bounds the memory of a preparation."""
_LISTED = 1000
"""Skipped windows listed one by one; all are counted."""
_COLUMNS = {field.name: str(field.type) for field in fields(Window) if field.name != "index"}
"""Fields of a Window as they are stored, with their types; its index is the row."""
_OF_PASSAGES = ("passage_lengths", "teacher_before_ids")
"""Those that are stored only where the view reads passages."""
Rendering = Callable[[Document], Document]
"""A document with the text that is read in place of its own. RefusedRow where it is to be left out."""


class RefusedRow(Exception):  # noqa: N818  it is counted, and no error
    """A document that cannot be shown, and is left out: the reason it is counted by, and what was said."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


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
class WrittenDocuments:
    """What a view made of the documents before they became windows, as data.json has it."""

    view: str
    documents: int
    characters: int
    skipped: int
    """Empty ones, and those with the same text as another."""
    content_sha256: str

    def in_words(self) -> str:
        """What a person should know of it."""
        left_out = f"; {self.skipped:,} are empty or there twice, and left out" if self.skipped else ""
        return f"Written before training: the view {self.view} made {number_of(self.documents, 'document')}{left_out}."


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
    written: WrittenDocuments | None = None
    """The documents that a view wrote, which the windows are of; None: they are of the documents as they were given."""
    begun: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # [windows] bool, whether BOS is in `lengths`

    def __len__(self) -> int:
        return self.counts.windows

    def __getitem__(self, index: int) -> Window:
        number, row = divmod(index, _ROWS_PER_BATCH)
        batch = _opened(self.path)[number]
        return Window(index=index, **{name: _value(batch.column(name)[row]) for name in batch.schema.names})

    def largest_token(self) -> int:
        """The largest id in any window. Reads all of them."""
        names = ("token_ids", "anchor_ids", "teacher_before_ids")
        columns = [batch.column(name) for batch in _opened(self.path) for name in names if name in batch.schema.names]
        return max((int(column.values.to_numpy().max(initial=0)) for column in columns), default=0)

    def to_json(self) -> dict[str, Any]:
        """The counts and what was skipped, as data.json has them."""
        listed = [asdict(skipped) for skipped in self.skipped]
        said = {**vars(self.counts), "skipped_windows_listed": listed, "control_tokens_are": self.control_tokens}
        return said | ({"prepared_by_view": asdict(self.written)} if self.written else {})


def prepare(
    corpus: Corpus,
    tokenizer: Any,
    special: SpecialTokens,
    window_settings: WindowSettings,
    view: View,
    path: Path,
    *,
    render: Rendering | None = None,
    written: WrittenDocuments | None = None,
) -> Prepared:
    """Read every document, as `render` has it, into windows and write those that the view can train to `path`.

    `written` says that the corpus is what a view wrote. The same documents and settings give the same bytes on every
    machine. A corpus of which nothing is trainable is a DataError that says why.
    """
    sources = {name: number for number, name in enumerate(corpus.dataset.unique("source"))}
    counts, skipped = PreparedCounts(), list[Skipped]()

    def skip(document: Document, reason: str, detail: str) -> None:
        """Count what is left out, and list the first of it."""
        counts.skipped_windows[reason] += 1
        if len(skipped) < _LISTED:
            skipped.append(Skipped(document.source, document.id, reason, detail))

    def trained() -> Iterator[Window]:
        """The windows of all documents that can be trained, counted in passing."""
        for document in corpus:
            try:
                shown = render(document) if render else document
            except RefusedRow as row:
                skip(document, row.reason, row.detail)
                continue
            read = _reader(shown, view)(shown, sources[document.source], tokenizer, special, window_settings)
            for detail in read.left_out:
                skip(document, "too_long", detail)
            reasons = [view.skip_reason(window) for window in read.windows]
            counts.split_documents += len(read.windows) > 1
            counts.cut_sentences += read.cut_sentences
            counts.cut_anchors += read.cut_anchor
            counts.control_tokens += read.control_tokens
            counts.control_token_documents += read.control_tokens > 0
            counts.trained_documents += None in reasons
            for window, reason in zip(read.windows, reasons, strict=True):
                if reason:
                    skip(document, reason, f"{len(window.token_ids)} tokens, {len(window.sentence_starts)} sentences")
                else:
                    counts.windows, counts.tokens = counts.windows + 1, counts.tokens + len(window.token_ids)
                    yield window

    _write(path, trained(), [name for name in _COLUMNS if view.reads_passages or name not in _OF_PASSAGES])
    if not counts.windows:
        raise _untrainable(len(corpus), counts)
    record = {"counts": vars(counts), "skipped": [asdict(each) for each in skipped], "sources": list(sources)}
    how = {"control_tokens": window_settings.control_tokens, "written": asdict(written) if written else None}
    replace_file(path.with_suffix(".json"), json.dumps({**record, **how}))
    return read_prepared(path)


def read_prepared(path: Path) -> Prepared:
    """The windows that this or another process has prepared at `path`."""
    record = parse_json(path.with_suffix(".json").read_text(encoding="utf-8"))
    by_reason = Counter[str](record["counts"].pop("skipped_windows"))
    counts = PreparedCounts(skipped_windows=by_reason, **record["counts"])
    written = record["written"] and WrittenDocuments(**record["written"])
    skipped = tuple(Skipped(**each) for each in record["skipped"])
    _opened.cache_clear()
    lengths = np.concatenate([np.diff(batch.column("token_ids").offsets) for batch in _opened(path)]).astype(np.int64)
    ends = np.concatenate([batch.column("is_document_end").to_numpy(zero_copy_only=False) for batch in _opened(path)])
    begun = np.concatenate([_begun(batch) for batch in _opened(path)])
    sources = tuple(record["sources"])
    return Prepared(path, counts, skipped, lengths, ends, sources, record["control_tokens"], written, begun)


def _begun(batch: Any) -> np.ndarray:
    """[windows] bool, whether each is of passages, which have their own BOS."""
    if "passage_lengths" not in batch.schema.names:
        return np.zeros(int(batch.num_rows), bool)
    lengths = np.diff(batch.column("passage_lengths").offsets)
    return np.array(lengths > 0)


def content_hash(prepared: Prepared) -> str:
    """SHA-256 of the windows as they are trained: what a resumed run must find unchanged."""
    return file_sha256(prepared.path)


def _reader(document: Document, view: View) -> Callable[..., ReadDocument]:
    """What reads a document into windows: its passages, where the view is for them and there are some."""
    return read_passages if view.reads_passages and document.passages is not None else read_document


def _untrainable(documents: int, counts: PreparedCounts) -> DataError:
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.skipped_windows.items())
    problem = f"none of the {documents} documents has a trainable position ({reasons or 'no text'})"
    remedy = "Give two sentences or more, or use a token strategy or fine-tuning"
    if max(counts.skipped_windows, key=counts.skipped_windows.__getitem__, default="") == NO_PASSAGES:
        remedy = "What is written about them is of no use: see written.jsonl, and let a larger model write (generator)"
    return DataError(f"documents: {problem}. {remedy}.")


def _arrow() -> Any:
    """PyArrow, which has no types. It is imported where it is used: `afterword --help` can do without."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow


@functools.cache
def _opened(path: Path) -> list[Any]:
    """The file's record batches, of _ROWS_PER_BATCH windows each."""
    # One memory map a process and file; one for every Prepared would map it again in each worker's copy.
    pa = _arrow()
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return list(stream)


def _value(cell: Any) -> Any:
    ids = getattr(cell, "values", None)
    return cell.as_py() if ids is None else ids.to_numpy().astype(np.int64)


def _write(path: Path, windows: Iterator[Window], names: Sequence[str]) -> None:
    """One Arrow file, which has its name when it is whole. What stops on the way leaves nothing of it."""
    pa = _arrow()
    types = {"str": pa.string(), "int": pa.int32(), "bool": pa.bool_(), "np.ndarray": pa.list_(pa.int32())}
    schema = pa.schema({name: types[_COLUMNS[name]] for name in names})
    with (
        one_move(path.parent, lambda: path.name) as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        while batch := list(itertools.islice(windows, _ROWS_PER_BATCH)):
            rows = [{name: getattr(window, name) for name in names} for window in batch]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
