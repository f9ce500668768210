"""Rows become documents: which column is the text, the id, the title, the date, the source.

A column is the one named in the settings, or found by its usual names; a guess between two is an error.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from afterword.corpus.options import CorpusOptions
from afterword.errors import DataError
from afterword.types import Document, Skipped

_TEXT_NAMES = (
    *("text", "content", "contents", "document", "body", "passage", "article", "abstract", "context"),
    *("full_text", "page_content", "markdown"),
)
# The optional columns, each with its usual names; the earlier wins.
_OPTIONAL_NAMES = {
    "id": ("id", "_id", "doc_id", "docid", "document_id", "uid", "uuid"),
    "title": ("title", "headline", "heading"),
    "date": ("date", "published", "published_at", "publication_date", "created", "created_at", "timestamp"),
    "source": ("source",),
}
_LISTED_COLUMNS = 30


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from, as errors, ids and counts name it."""

    shown: str
    """For messages: the path as given, or the data-set id."""
    name: str
    """For ids: the path relative to the given folder, or the file name."""
    source: str
    """The source as given, under which its documents are counted."""
    path: Path = Path()
    """The file. Unused where rows are not in one."""
    unit: str = "row"
    """What rows are numbered by: lines count from 1, rows from 0, as an index."""

    def skipped(self, number: int, reason: str, detail: str) -> Skipped:
        """The row at `number` cannot be used."""
        return Skipped(self.shown, f"{self.unit} {number}", reason, detail)


@dataclass(frozen=True, slots=True)
class Found:
    """A document, and where it was."""

    document: Document
    shown: str
    location: str


Record = Found | Skipped


def read_rows(rows: Iterable[tuple[int, Any] | Skipped], origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    """Documents of numbered rows. A row is an object, a Document, or a string, which is the text.

    The columns of the first object hold for all: a later row without the text column is broken.
    """
    text_column: str | None = None
    for entry in rows:
        if isinstance(entry, Skipped):
            yield entry
            continue
        number, row = entry
        if isinstance(row, Mapping) and text_column is None:
            text_column = find_columns(tuple(row), options, origin.shown)["text"]
        yield _read_row(number, row, text_column or "", origin, options)


def find_columns(columns: Sequence[Any], options: CorpusOptions, shown: str) -> dict[str, str]:
    """Column of each part of a document. Raises a DataError where the text is not in exactly one column."""
    named = {part: getattr(options, f"{part}_column") for part in ("text", *_OPTIONAL_NAMES)}
    for part, column in named.items():
        if column is not None and column not in columns:
            raise _no_such_column(part, column, columns, shown)
    text = named["text"] or _detect_text(columns, set(named.values()), shown)
    return {"text": text, **_optional_columns(tuple(columns), options)}


def _detect_text(columns: Sequence[Any], taken: set[str | None], shown: str) -> str:
    matches = [c for c in columns if c not in taken and str(c).lower() in _TEXT_NAMES]
    if len(matches) == 1:
        return matches[0]
    problem = f"columns {_listed(matches)} could all be" if matches else "no column looks like"
    raise DataError(f"{shown}: {problem} the text. Name it with text_column; the columns are {_listed(columns)}.")


def _no_such_column(part: str, column: str, columns: Sequence[Any], shown: str) -> DataError:
    near = get_close_matches(column, [str(c) for c in columns], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return DataError(f"{shown}: {part}_column = {column!r}: no such column.{hint} The columns are {_listed(columns)}.")


def _listed(columns: Sequence[Any]) -> str:
    more = len(columns) - _LISTED_COLUMNS
    named = ", ".join(str(c) for c in columns[:_LISTED_COLUMNS]) or "none"
    return f"{named} and {more} more" if more > 0 else named


# Rows of one file mostly have the same keys; the bound is for files whose rows never do.
@lru_cache(maxsize=256)
def _optional_columns(columns: tuple[Any, ...], options: CorpusOptions) -> dict[str, str]:
    lowered = {str(column).lower(): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for part, usual in _OPTIONAL_NAMES.items():
        named = getattr(options, f"{part}_column")
        detected = next((lowered[name] for name in usual if name in lowered), None)
        column = detected if named is None else named
        if column is not None and column != options.text_column:
            found[part] = column
    return found


def _read_row(number: int, row: Any, text_column: str, origin: Origin, options: CorpusOptions) -> Record:
    parts: dict[str, Any] = {"text": row}
    if isinstance(row, Document):
        parts = {"id": row.id, "text": row.text, "title": row.title, "date": row.date, "source": row.source}
    elif isinstance(row, Mapping):
        if text_column not in row:
            detail = f"no column {text_column!r}; it has {_listed(tuple(row))}"
            return origin.skipped(number, "broken", detail)
        optional = _optional_columns(tuple(row), options)
        parts = {part: row.get(column) for part, column in optional.items()} | {"text": row[text_column]}
    text = parts.pop("text")
    if not isinstance(text, str):
        where = f"the text, column {text_column!r}," if isinstance(row, Mapping) else "the row"
        return origin.skipped(number, "broken", f"{where} must be a string, not {_kind(text)}")
    written = {part: _written(value) for part, value in parts.items()}
    document = Document(
        id=written.get("id") or f"{origin.name}:{number}",
        text=text,
        title=written.get("title"),
        date=written.get("date"),
        source=written.get("source") or origin.source,
    )
    return Found(document, origin.shown, f"{origin.unit} {number}")


def _written(value: Any) -> str | None:
    """An id, title, date or source as text: nothing a row says of itself is a reason to refuse it."""
    if value is None or isinstance(value, str):
        return value.strip() or None if value else None
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _kind(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", bool: "a truth value", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
