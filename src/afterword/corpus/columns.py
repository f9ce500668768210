"""The settings of reading, and rows that become documents: which column is the text, which the id or the title.

A column is the one named in the settings, or found by its usual names; a guess between two is an error. Rows of
instructions and preferences have no text column: their text is made of the dialogue that they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Self, get_args

from afterword.corpus.dialogues import Kind, Responses, dialogue_of, plain_text
from afterword.corpus.rows import Origin, Record, Rows
from afterword.errors import DataError, nearest, printable
from afterword.storage.files import BadRowError, problem_of
from afterword.types import Document

# The columns of each part of a document, by their usual names; of labels, the earlier wins.
_USUAL = {
    "text": "text content contents document body passage article abstract context full_text page_content markdown",
    "id": "id _id doc_id docid document_id uid uuid",
    "title": "title headline heading",
    "date": "date published published_at publication_date created created_at timestamp",
    "source": "source",
}


class NoTextError(DataError):
    """A file without a column that holds the text of documents: another data file, or a tool's configuration."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How documents are found in rows, and what stops the reading."""

    text_column: str | None = None
    """Column that holds the text. Detected when None."""
    text_after: str | None = None
    """A mark behind which the text of a document begins, as `<context>`. Whole when None."""
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
    kind: Kind = "documents"
    """What the rows are. Instructions and preferences become documents with a dialogue."""
    responses: Responses = "chosen"
    """Which responses of preferences become documents. `both`: two of every pair, the second without its pair."""
    output_dir: str | None = None
    """Folder of the run, whose files are never read as documents."""
    joiner: str = "\n\n"
    """Stands between the messages of a dialogue in the text of its document."""

    @classmethod
    def of(cls, settings: Any) -> Self:
        """Those among a run's settings, an object or a mapping; the other fields keep their defaults."""
        given = settings if isinstance(settings, Mapping) else vars(settings)
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})

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
        if self.kind not in get_args(Kind):
            yield f"kind: {self.kind!r} is not one of {', '.join(get_args(Kind))}. {nearest(self.kind, get_args(Kind))}"
        if self.responses not in get_args(Responses):
            yield f"responses: {self.responses!r} is not one of {', '.join(get_args(Responses))}."
        if self.kind != "documents" and self.text_column is not None:
            yield f"text_column: {self.kind} have no text column, got {self.text_column!r}. Leave it out."


def read_rows(rows: Rows, origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    """Documents of rows. The columns of the first object hold for all: one without its text column is broken."""
    columns: dict[str, str] | None = None
    try:
        for place, row in rows:
            if isinstance(row, Mapping) and columns is None:
                columns = find_columns(tuple(row), options, origin.shown)
            text_column = columns["text"] if columns and options.kind == "documents" else None
            unnamed = ":".join([origin.name, *place.split()[1:]])
            defaults = {"id": unnamed, "title": None, "date": None, "source": origin.source, "section": None}
            for document in _documents(row, text_column, options, defaults):
                yield document, origin.shown, place or origin.name
    except BadRowError as error:
        yield error, origin.shown, origin.name


def find_columns(columns: Sequence[Any], options: CorpusOptions, shown: str) -> dict[str, str]:
    """Column of each part of a document. Raises a DataError where a document's text is not in exactly one column."""
    candidates = _candidates(tuple(columns), options)
    for part, (column, *_) in candidates.items():
        if column not in columns:
            problem = f"{part}_column = {column!r}: no such column. {nearest(column, map(str, columns))}"
            raise DataError(f"{shown}: {problem}The columns are {_listed(columns)}.")
    texts = candidates.get("text", [])
    if options.kind == "documents" and len(texts) != 1:
        problem = f"columns {_listed(texts)} could all be" if texts else "no column looks like"
        raise NoTextError(f"{shown}: {problem} the text. Name it with text_column; the columns are {_listed(columns)}.")
    return {part: found[0] for part, found in candidates.items()}


def columns_to_read(columns: Sequence[str], options: CorpusOptions, shown: str) -> list[str]:
    """Those of a table that documents need, so that no picture or sound beside the text is decoded.

    All of them for dialogues, which may be in any. Raises the DataErrors of `find_columns`.
    """
    found = find_columns(columns, options, shown)
    return list(set(found.values())) if options.kind == "documents" else list(columns)


def _listed(columns: Iterable[Any]) -> str:
    return printable((_label(", ".join(map(str, columns))) or "none")[:250], kept="")


# Rows of one file mostly have the same keys; the bound is for files whose rows never do.
@lru_cache(maxsize=256)
def _candidates(columns: tuple[Any, ...], options: CorpusOptions) -> dict[str, list[str]]:
    """For each part that has any: the column named for it, or else those of its usual names."""
    named = {part: getattr(options, f"{part}_column") for part in _USUAL}
    free = [(str(column).lower(), column) for column in columns if column not in named.values()]
    usual = {part: [c for name in names.split() for low, c in free if low == name] for part, names in _USUAL.items()}
    return {part: [name] if name else usual[part] for part, name in named.items() if name or usual[part]}


def _documents(
    row: Any, text_column: Any, options: CorpusOptions, defaults: dict[str, Any]
) -> Iterator[Document | BadRowError]:
    try:
        told = _parts(row, text_column, options)
    except BadRowError as error:
        yield error
        return
    for parts, which in zip(told, ("", ":rejected"), strict=False):
        labels: dict[str, Any] = {name: _label(parts.get(name)) or _label(value) for name, value in defaults.items()}
        labels["id"] += which
        whole = {name: parts.get(name) for name in ("dialogue", "passages")}
        yield problem_of(parts["text"]) or Document(text=parts["text"], **whole, **labels)


def _parts(row: Any, text_column: Any, options: CorpusOptions) -> list[dict[str, Any]]:
    """What a row says of its document, by part; the text is there, and a string. Two where both responses are read."""
    if isinstance(row, BadRowError):
        raise row
    parts, where = {"text": row}, "row"
    if isinstance(row, Mapping):
        found = {part: row.get(columns[0]) for part, columns in _candidates(tuple(row), options).items()}
        parts, where = found | {"text": row.get(text_column)}, f"text, column {text_column!r} of {_listed(row)},"
    if options.kind != "documents":
        return [parts | own for own in _dialogue_parts(row, options)]
    if isinstance(row, Document):
        parts = asdict(row)
    if not isinstance(parts["text"], str):
        raise BadRowError("broken", f"the {where} must be a string, not {parts['text']!r:.40}")
    return [parts | {"text": _behind(parts["text"], options.text_after, where)}]


def _behind(text: str, mark: str | None, where: str) -> str:
    """What stands behind the first of the marks, without white space around it."""
    if not mark:
        return text
    _, found, rest = text.partition(mark)
    if not found:
        raise BadRowError("broken", f"text_after = {mark!r}: the {where} has no such mark")
    return rest.strip()


def _dialogue_parts(row: Any, options: CorpusOptions) -> Iterator[dict[str, str]]:
    if not isinstance(row, Mapping):
        raise BadRowError("broken", f"{options.kind} are rows with named columns, not {row!r:.40}")
    dialogue = dialogue_of(row, options.kind)
    for each in dialogue.apart() if options.responses == "both" else (dialogue,):
        yield {"text": plain_text(each, options.joiner), "dialogue": each.to_json()}


def _label(value: Any) -> str | None:
    """As text, whatever it is: no label, and no half a surrogate pair in one, is worth refusing a text for."""
    return None if value is None else str(value).strip().encode("utf-8", "replace").decode() or None
