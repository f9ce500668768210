"""The settings of reading, and rows that become documents: which column is the text, which the id or the title.

A column is the one named in the settings, or found by its usual names; a guess between two is an error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from afterword.errors import DataError, nearest
from afterword.types import Document

# The columns of each part of a document, by their usual names; of labels, the earlier wins.
_USUAL = {
    "text": "text content contents document body passage article abstract context full_text page_content markdown",
    "id": "id _id doc_id docid document_id uid uuid",
    "title": "title headline heading",
    "date": "date published published_at publication_date created created_at timestamp",
    "source": "source",
}


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How documents are found in rows, and what stops the reading."""

    text_column: str | None = None
    """Column that holds the text. Detected when None."""
    id_column: str | None = None
    title_column: str | None = None
    date_column: str | None = None
    source_column: str | None = None
    """Column whose values replace the name of the source in `Document.source`."""
    skip_bad_rows: bool = False
    """Skip rows that are broken or not UTF-8, counted and listed, instead of stopping at the first."""
    max_document_mib: float = 64.0
    """In UTF-8, at most 1024. A larger document, line or text file stops the reading; it is never cut.
    A .json file, which has to be in memory whole, may be eight times as large."""
    streaming: bool = False
    """Read data-set ids through the streaming interface of datasets, without downloading them first."""
    max_documents: int | None = None
    """Stop after so many documents, over all sources. Needed where a stream has no end."""

    @property
    def max_document_bytes(self) -> int:
        """`max_document_mib` in bytes."""
        return round(self.max_document_mib * 2**20)

    def problems(self) -> Iterator[str]:
        """One sentence for every setting that cannot be used."""
        # Arrow counts the bytes of a batch's string column in 31 bits: a document must stay well below 2 GiB.
        if not 0 < self.max_document_mib <= 1024:
            yield f"max_document_mib: must be above 0 and at most 1024, got {self.max_document_mib}."
        if self.max_documents is not None and self.max_documents < 1:
            yield f"max_documents: must be at least 1, or left out for no limit, got {self.max_documents}."


class BadRowError(ValueError):
    """A row that cannot be used. It stops the run, or is counted; a reader raises it of a whole file."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


Rows = Iterator[tuple[str, Any]]
"""Each with its place (`line 3`, `row 2`, empty where it is a whole file); an object, a Document, the text
itself, or the BadRowError that is there instead."""


class Origin(NamedTuple):
    """Where rows come from, as errors, ids and counts name it."""

    shown: str
    """For messages: the path as it is opened, or the data-set id."""
    name: str
    """For ids: the path relative to the given folder, or the file name."""
    source: str
    """The source as given, under which its documents are counted."""


Record = tuple[Document | BadRowError, str, str]
"""A document, or why there is none; the file or data set it was in, as shown; and where in it."""


def numbered(rows: Iterable[Any]) -> Rows:
    """Rows that are in no lines count from 0, as an index."""
    return ((f"row {number}", row) for number, row in enumerate(rows))


def read_rows(rows: Rows, origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    """Documents of rows. The columns of the first object hold for all: one without its text column is broken."""
    text_column = None
    try:
        for place, row in rows:
            if isinstance(row, Mapping) and text_column is None:
                text_column = find_columns(tuple(row), options, origin.shown)["text"]
            unnamed = ":".join([origin.name, *place.split()[1:]])
            defaults = {"id": unnamed, "title": None, "date": None, "source": origin.source}
            yield _document(row, text_column, options, defaults), origin.shown, place or origin.name
    except BadRowError as error:
        yield error, origin.shown, origin.name


def find_columns(columns: Sequence[Any], options: CorpusOptions, shown: str) -> dict[str, str]:
    """Column of each part of a document. Raises a DataError where the text is not in exactly one column."""
    candidates = _candidates(tuple(columns), options)
    for part, (column, *_) in candidates.items():
        if column not in columns:
            problem = f"{part}_column = {column!r}: no such column. {nearest(column, map(str, columns))}"
            raise DataError(f"{shown}: {problem}The columns are {_listed(columns)}.")
    texts = candidates.get("text", [])
    if len(texts) != 1:
        problem = f"columns {_listed(texts)} could all be" if texts else "no column looks like"
        raise DataError(f"{shown}: {problem} the text. Name it with text_column; the columns are {_listed(columns)}.")
    return {part: found[0] for part, found in candidates.items()}


def _listed(columns: Iterable[Any]) -> str:
    return (_label(", ".join(map(str, columns))) or "none")[:250]


# Rows of one file mostly have the same keys; the bound is for files whose rows never do.
@lru_cache(maxsize=256)
def _candidates(columns: tuple[Any, ...], options: CorpusOptions) -> dict[str, list[str]]:
    """For each part that has any: the column named for it, or else those of its usual names."""
    named = {part: getattr(options, f"{part}_column") for part in _USUAL}
    free = [(str(column).lower(), column) for column in columns if column not in named.values()]
    usual = {part: [c for name in names.split() for low, c in free if low == name] for part, names in _USUAL.items()}
    return {part: [name] if name else usual[part] for part, name in named.items() if name or usual[part]}


def _document(row: Any, text_column: Any, options: CorpusOptions, defaults: dict[str, Any]) -> Document | BadRowError:
    if isinstance(row, BadRowError):
        return row
    parts, where = {"text": row}, "row"
    if isinstance(row, Document):
        parts = asdict(row)
    elif isinstance(row, Mapping):
        found = {part: row.get(columns[0]) for part, columns in _candidates(tuple(row), options).items()}
        parts, where = found | {"text": row.get(text_column)}, f"text, column {text_column!r} of {_listed(row)},"
    text = parts.pop("text")
    if not isinstance(text, str):
        return BadRowError("broken", f"the {where} must be a string, not {text!r:.40}")
    labels: dict[str, Any] = {part: _label(parts.get(part)) or _label(default) for part, default in defaults.items()}
    return problem_of(text) or Document(text=text, **labels)


def problem_of(text: str) -> BadRowError | None:
    """Why a text cannot be used, if it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        problem = f"character {error.start} of the text is not valid Unicode ({text[error.start]!a}, its line {line})."
        return BadRowError("undecodable", f"{problem} Convert a file that is not UTF-8: iconv -f WINDOWS-1252 -t UTF-8")
    return None if text.strip() else BadRowError("empty", "nothing but whitespace")


def _label(value: Any) -> str | None:
    """As text, whatever it is: no label, and no half a surrogate pair in one, is worth refusing a text for."""
    return None if value is None else str(value).strip().encode("utf-8", "replace").decode() or None
