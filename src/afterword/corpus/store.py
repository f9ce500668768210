"""Documents on disk: gathered from the sources once, checked, counted, and memory-mapped.

What is in memory while reading is one batch, and for each document its id and a 16-byte digest.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from afterword.corpus.columns import CorpusOptions
from afterword.corpus.folders import sentences
from afterword.corpus.sources import Source, SourceReport, find_sources
from afterword.errors import ConfigError, DataError
from afterword.storage.atomic import one_move
from afterword.storage.files import BadRowError, too_large
from afterword.types import Document, Skipped

_BATCH_BYTES = 8 * 2**20
_TMPDIR = "TMPDIR"
"""What a person sets to have temporary folders elsewhere."""
_ROW_BYTES = 2048  # What a row is taken to need beside its text: batches of short texts stay small, too.


@dataclass(frozen=True, eq=False)
class Corpus:
    """All documents to be learned, in the order they were given, read from disk as they are asked for."""

    dataset: Any
    """A datasets.Dataset: string columns, the fields of Document; memory-mapped from `path`."""
    path: Path
    """The Arrow file."""
    sources: tuple[SourceReport, ...]
    skipped: tuple[Skipped, ...]
    """The first 1000; `skipped_total` counts them all."""
    skipped_total: int
    content_sha256: str
    """Over ids, titles, texts, dialogues and passages in order. Equal for equal content, wherever it was read from."""
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
        counts = {"documents": len(self), "characters": self.characters, "skipped_total": self.skipped_total}
        read = {"content_sha256": self.content_sha256, "stopped_at_max_documents": self.stopped_at_max_documents}
        listed = {"sources": [s.to_json() for s in self.sources], "skipped": [asdict(s) for s in self.skipped]}
        said = {
            "not_read": [sentence for source in self.sources for sentence in sentences(source.source, source.aside)]
        }
        return {**counts, **read, **listed, "skipped_listed": len(self.skipped), **said}


def read_corpus(sources: Any, *, cache_dir: Path, options: CorpusOptions | None = None) -> Corpus:
    """Read all documents of `sources` into one Arrow file in `cache_dir`, and map it.

    `sources` is one, or a list, of: a file (.txt .md .rst .html .htm .jsonl .json .csv .parquet, plain or
    .gz), a folder, a glob, a folder written by datasets' save_to_disk, a data-set id, `id:split` or
    `path:split`; or Python values: a datasets Dataset or IterableDataset, a list or generator of strings,
    rows or Documents. A list of strings is a list of names if any of them is one, else of texts. Instructions and
    preferences are rows: no .txt .md .rst .html .htm, strings or Documents; such files in a folder are counted.

    Raises a DataError with file, place and remedy for what cannot be read, and a ConfigError for options.
    """
    from datasets import Dataset

    options = options or CorpusOptions()
    if problems := list(options.problems()):
        raise ConfigError(problems)
    gathering = _Gathering(options)
    path = _write(gathering, find_sources(sources, options), Path(cache_dir))
    total = sum(sum(report.skipped.values()) for report in gathering.reports)
    read = (tuple(gathering.reports), tuple(gathering.skipped), total, gathering.content.hexdigest())
    return Corpus(Dataset.from_file(str(path)), path, *read, gathering.documents == options.max_documents)


class _Gathering:
    """Documents on their way to disk: makes ids unique, leaves out what is empty or there already."""

    def __init__(self, options: CorpusOptions):
        self.options = options
        self.documents, self.bytes = 0, 0
        self.content, self.labels = hashlib.sha256(), hashlib.sha256()
        self.reports: list[SourceReport] = []
        self.skipped: list[Skipped] = []
        self._ids: dict[str, int] = {}  # id → times it was asked for
        self._id_of_text: dict[bytes, str] = {}  # digest of a text → id of the document that has it

    def read(self, source: Source) -> Iterator[Document]:
        """The documents of a source that are kept."""
        report, records = source
        self.reports.append(report)
        while self.documents != self.options.max_documents and (record := next(records, None)):
            document, shown, location = record
            if isinstance(document, Document):
                document = self._keep(document, _place(shown, location), report)
            if isinstance(document, Document):
                yield document
            else:
                self._skip(Skipped(shown, location, document.reason, str(document)), document, report)

    def _keep(self, document: Document, place: str, report: SourceReport) -> Document | BadRowError:
        # Of a dialogue, all: pairs that differ only in the rejected response have the same text.
        what = (document.dialogue or document.text.strip()) + (document.passages or "")
        digest = hashlib.blake2b(what.encode(), digest_size=16).digest()
        if digest in self._id_of_text:
            return BadRowError("duplicate", f"same text as {self._id_of_text[digest]}")
        kept = replace(document, id=self._unique_id(document.id))
        parts = [part.encode() for part in (kept.id, kept.title or "", kept.text)]
        parts += [kept.dialogue.encode()] if kept.dialogue else []
        parts += [b"section:" + kept.section.encode()] if kept.section else []
        if max(map(len, parts[2:])) > self.options.max_document_bytes:
            raise too_large(place, self.options.max_document_bytes)
        parts += [b"passages:" + kept.passages.encode()] if kept.passages is not None else []
        self.content.update(b"".join(len(part).to_bytes(8, "little") + part for part in parts))
        self.labels.update(repr((kept.date, kept.source)).encode())
        self._id_of_text[digest] = kept.id
        self.documents, self.bytes = self.documents + 1, self.bytes + sum(map(len, parts[2:])) + _ROW_BYTES
        report.documents += 1
        report.characters += len(kept.text)
        report.renamed_ids += kept.id != document.id
        return kept

    def _unique_id(self, wanted: str) -> str:
        unique = wanted
        while unique in self._ids:
            self._ids[wanted] += 1
            unique = f"{wanted}#{self._ids[wanted]}"
        self._ids[unique] = 1
        return unique

    def _skip(self, skipped: Skipped, error: BadRowError, report: SourceReport) -> None:
        # Empty and duplicate documents are always left out.
        if skipped.reason in ("broken", "undecodable") and not self.options.skip_bad_rows:
            place = _place(skipped.source, skipped.location)
            such = "files" if place == skipped.source else "rows"
            remedy = f"{error.remedy or 'Repair it'}, or set skip_bad_rows: true to leave out such {such}, counted"
            raise DataError(f"{place}: {error.problem}. {remedy}.")
        report.skipped[skipped.reason] = report.skipped.get(skipped.reason, 0) + 1
        if len(self.skipped) < 1000:  # Listed; all are counted.
            self.skipped.append(skipped)

    def file_name(self) -> str:
        """Of all columns, so that no two corpora with different rows share it. A DataError where there is no row."""
        if not self.documents:
            given = ", ".join(f"{r.source} (skipped: {_counts(r.skipped) or 'no row at all'})" for r in self.reports)
            first = next(iter(self.skipped), None)
            why = f" The first: {_place(first.source, first.location)}: {first.detail}." if first else ""
            raise DataError(f"{given}: no documents.{why} Give a source that holds text.")
        return f"corpus-{hashlib.sha256(self.content.digest() + self.labels.digest()).hexdigest()[:16]}.arrow"


def _place(shown: str, location: str) -> str:
    """Where something is, for a message: of a whole file, whose place in it is its own name, only the file."""
    return shown if shown.endswith(location) else f"{shown}, {location}"


def _counts(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in skipped.items())


def _write(gathering: _Gathering, sources: list[Source], folder: Path) -> Path:
    """One Arrow file, which has its name when it is whole. Nothing of it stays unless it was finished."""
    import pyarrow as pa

    schema = pa.schema([(field.name, pa.string()) for field in fields(Document)])
    batches = groupby(chain.from_iterable(map(gathering.read, sources)), lambda _: gathering.bytes // _BATCH_BYTES)
    try:
        with (
            one_move(folder, gathering.file_name) as unfinished,
            pa.OSFile(str(unfinished), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            for _, batch in batches:
                writer.write_batch(pa.RecordBatch.from_pylist([asdict(row) for row in batch], schema=schema))
    except OSError as error:
        name, place = (_TMPDIR, tempfile.gettempdir()) if _is_temporary(folder) else ("cache_dir", folder)
        problem = f"{name} = {place}: cannot be written: {error.strerror or error}"
        raise DataError(f"{problem}. Free space or choose another.") from error
    return folder / gathering.file_name()


def _is_temporary(folder: Path) -> bool:
    """Whether a command of ours made the folder for itself, in the place that the system has for such."""
    place = Path(tempfile.gettempdir()).absolute()
    return any(above.parent == place and above.name.startswith("afterword-") for above in folder.absolute().parents)
