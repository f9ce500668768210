"""Documents on disk: gathered from the sources once, checked, counted, and memory-mapped.

What is in memory while reading is one batch, and for each document its id and a 16-byte digest.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterword.corpus.columns import Found
from afterword.corpus.lines import too_large
from afterword.corpus.options import CorpusOptions
from afterword.corpus.sources import Source, find_sources
from afterword.errors import ConfigError, DataError
from afterword.types import Document, Skipped

if TYPE_CHECKING:
    from datasets import Dataset

_COLUMNS = ("id", "text", "title", "date", "source")
_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 4096
_LISTED = 1000
# What skip_bad_rows decides over. Empty and duplicate documents are always left out.
_BAD_REASONS = ("broken", "undecodable")


@dataclass(frozen=True)
class SourceReport:
    """What one source gave."""

    source: str
    """As given: a path, a glob, a data-set id, or `memory`."""
    documents: int
    characters: int
    files: int
    """Files of known endings that were found."""
    skipped: dict[str, int]
    """Rows and documents that were not used, by reason."""
    ignored_files: dict[str, int]
    """Files in the folder whose ending is not read, by ending."""
    renamed_ids: int
    """Documents whose id was taken by another text, and got `#2`, `#3`, …"""


@dataclass(frozen=True, eq=False)
class Corpus:
    """All documents to be learned, in the order they were given, read from disk as they are asked for."""

    dataset: Dataset
    """String columns id, text, title, date, source; memory-mapped from `path`."""
    path: Path
    """The Arrow file."""
    sources: tuple[SourceReport, ...]
    skipped: tuple[Skipped, ...]
    """The first 1000; `skipped_total` counts them all."""
    skipped_total: int
    content_sha256: str
    """Over ids, titles and texts in order. Equal for equal content, wherever it was read from."""
    stopped_at_max_documents: bool
    """Whether reading ended because `max_documents` were there; what came after was not looked at."""

    @property
    def characters(self) -> int:
        """Unicode characters in all texts."""
        return sum(source.characters for source in self.sources)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Document:
        return Document(**self.dataset[index])

    def __iter__(self) -> Iterator[Document]:
        return (Document(**row) for row in self.dataset)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """What data.json says of the documents."""
        return {
            "documents": len(self),
            "characters": self.characters,
            "content_sha256": self.content_sha256,
            "stopped_at_max_documents": self.stopped_at_max_documents,
            "sources": [asdict(source) for source in self.sources],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "skipped_listed": len(self.skipped),
            "skipped_total": self.skipped_total,
        }


def read_corpus(sources: Any, *, cache_dir: Path, options: CorpusOptions | None = None) -> Corpus:
    """Read all documents of `sources` into one Arrow file in `cache_dir`, and map it.

    `sources` is one, or a list, of: a file (.txt .md .rst .html .htm .jsonl .json .csv .parquet, plain or
    .gz), a folder, a glob, a folder written by datasets' save_to_disk, a data-set id, `id:split` or
    `path:split`; or Python values: a datasets Dataset or IterableDataset, a list or generator of strings,
    rows or Documents. A list of strings is a list of names if any of them is one, else of texts.

    Raises a DataError with file, place and remedy for what cannot be read, and a ConfigError for options.
    """
    options = options or CorpusOptions()
    if problems := list(options.problems()):
        raise ConfigError(problems)
    found = find_sources(sources, options)
    with _arrow_file(Path(cache_dir)) as arrow:
        gathering = _Gathering(arrow, options)
        reports = tuple(gathering.read(source) for source in found)
        if not gathering.documents:
            raise _nothing_left(reports)
        path = arrow.finish(gathering.file_key())
    return Corpus(
        dataset=_map_dataset(path),
        path=path,
        sources=reports,
        skipped=tuple(gathering.skipped),
        skipped_total=sum(sum(report.skipped.values()) for report in reports),
        content_sha256=gathering.content.hexdigest(),
        stopped_at_max_documents=gathering.is_full,
    )


class _Gathering:
    """Documents on their way to disk: makes ids unique, leaves out what is empty or there already."""

    def __init__(self, arrow: _ArrowFile, options: CorpusOptions):
        self.arrow = arrow
        self.options = options
        self.documents = 0
        self.content = hashlib.sha256()
        self.skipped: list[Skipped] = []
        self._labels = hashlib.sha256()
        self._ids: dict[str, int] = {}  # id → times it was asked for
        self._id_of_text: dict[bytes, str] = {}  # digest of a text → id of the document that has it

    @property
    def is_full(self) -> bool:
        return self.documents == self.options.max_documents

    def read(self, source: Source) -> SourceReport:
        skipped: Counter[str] = Counter()
        documents, characters, renamed = self.documents, 0, 0
        records = iter(()) if self.is_full else source.records()
        for record in records:
            kept = self._keep(record) if isinstance(record, Found) else record
            if isinstance(kept, Skipped):
                skipped[kept.reason] += 1
                self._note(kept)
            else:
                characters += len(kept.text)
                renamed += isinstance(record, Found) and kept.id != record.document.id
            if self.is_full:
                break
        count = self.documents - documents
        counts = dict(sorted(skipped.items()))
        return SourceReport(source.label, count, characters, source.files, counts, source.ignored_files, renamed)

    def _keep(self, found: Found) -> Document | Skipped:
        document = found.document
        try:
            data = document.text.encode()
        except UnicodeEncodeError as error:
            detail = f"character {error.start} of the text is not valid Unicode (a byte that is not UTF-8?)"
            return Skipped(found.shown, found.location, "undecodable", detail)
        if len(data) > self.options.max_document_bytes:
            raise too_large(f"{found.shown}, {found.location}", self.options.max_document_bytes)
        stripped = document.text.strip().encode()
        if not stripped:
            return Skipped(found.shown, found.location, "empty", "nothing but whitespace")
        digest = hashlib.blake2b(stripped, digest_size=16).digest()
        if digest in self._id_of_text:
            detail = f"same text as {self._id_of_text[digest]}"
            return Skipped(found.shown, found.location, "duplicate", detail)
        return self._write(document, digest, data)

    def _write(self, document: Document, digest: bytes, data: bytes) -> Document:
        labels = (document.id, document.title, document.date, document.source)
        # A label with half a surrogate pair is not worth refusing a text for.
        written, title, date, source = (x and x.encode("utf-8", "replace").decode() for x in labels)
        kept = Document(self._unique_id(written or ""), document.text, title, date, source or "")
        self._id_of_text[digest] = kept.id
        for part in (kept.id.encode(), (title or "").encode(), data):
            self.content.update(len(part).to_bytes(8, "little"))
            self.content.update(part)
        self._labels.update(repr((date, source)).encode())
        self.arrow.add(kept, len(data))
        self.documents += 1
        return kept

    def _unique_id(self, wanted: str) -> str:
        unique = wanted
        while unique in self._ids:
            self._ids[wanted] += 1
            unique = f"{wanted}#{self._ids[wanted]}"
        self._ids[unique] = 1
        return unique

    def _note(self, skipped: Skipped) -> None:
        if skipped.reason in _BAD_REASONS and not self.options.skip_bad_rows:
            raise DataError(
                f"{skipped.source}, {skipped.location}: {skipped.detail.rstrip('.')}. "
                "Repair it, or set skip_bad_rows: true to leave such rows out, counted and listed."
            )
        if len(self.skipped) < _LISTED:
            self.skipped.append(skipped)

    def file_key(self) -> str:
        """Name of the Arrow file: of all columns, so that no two corpora with different rows share it."""
        return hashlib.sha256(self.content.digest() + self._labels.digest()).hexdigest()[:16]


def _nothing_left(reports: tuple[SourceReport, ...]) -> DataError:
    skipped: Counter[str] = Counter()
    for report in reports:
        skipped.update(report.skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    names = ", ".join(report.source for report in reports)
    return DataError(
        f"{names}: no documents. {sum(skipped.values())} were skipped "
        f"({reasons or 'there was no row at all'}). Give a source that holds text."
    )


class _ArrowFile:
    """An Arrow stream, written in batches to a temporary sibling of the file it becomes."""

    def __init__(self, folder: Path, temporary: Path, sink: Any, schema: Any):
        import pyarrow as pa

        self._folder, self._temporary, self._schema = folder, temporary, schema
        self._sink, self._writer = sink, pa.ipc.new_stream(sink, schema)
        self._rows: list[Document] = []
        self._bytes = 0

    def add(self, document: Document, size: int) -> None:
        self._rows.append(document)
        self._bytes += size
        if self._bytes >= _BATCH_BYTES or len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [pa.array([getattr(row, name) for row in self._rows], pa.string()) for name in _COLUMNS]
        with _explained(self._folder):
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._rows, self._bytes = [], 0

    def finish(self, key: str) -> Path:
        """The last batch, and the name under which the file is whole."""
        if self._rows:
            self._flush()
        path = self._folder / f"corpus-{key}.arrow"
        with _explained(self._folder):
            self._writer.close()
            self._sink.close()  # What is still buffered has to be on disk before the name is.
            os.replace(self._temporary, path)
        return path


@contextmanager
def _arrow_file(folder: Path) -> Iterator[_ArrowFile]:
    """A new Arrow file in `folder`. Nothing of it stays unless it was finished."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".corpus-", suffix=".tmp")
    try:
        with open(handle, "wb") as sink:
            yield _ArrowFile(folder, Path(temporary), sink, schema)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cache_dir = {folder}: cannot be written: {reason}. Free space or choose another.") from error


def _map_dataset(path: Path) -> Dataset:
    from datasets import Dataset

    return Dataset.from_file(str(path))
