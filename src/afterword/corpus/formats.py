"""Formats in: one reader for each ending, all yielding rows with their place.

A reader says what is wrong and where, and never whether a bad row stops the run. Formats whose readers are large, or
not made for files of strangers, are read apart, in a process with limits.
"""

import csv
import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from afterword.corpus.apart import read_apart
from afterword.corpus.columns import CorpusOptions, columns_to_read
from afterword.corpus.dialogues import TURN_COLUMNS
from afterword.corpus.folders import OFFICE
from afterword.corpus.html import read_html
from afterword.corpus.others import other_formats, registered, uncompressed
from afterword.corpus.rows import LoneObject, Origin, Rows, numbered
from afterword.errors import ConfigError, DataError
from afterword.plugins import imported, is_place
from afterword.storage.files import BadRowError, ending_of, open_bytes, problem_of, read_lines, read_whole, size_of
from afterword.storage.parsing import parse_json, parse_yaml
from afterword.types import Document

_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n(.{0,16384}?\n)\1[ \t]*(?:\n|$)", re.S)
_SMALL_PAGE_BYTES = 8192
"""HTML up to here is read in this process: however it is written, its parser is done in a second."""


def _text_rows(origin: Origin, options: CorpusOptions) -> Rows:
    yield "", read_whole(origin.path, options.max_document_bytes)


def _markdown_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The text, and what its front matter says of it. A block that says nothing of settings is text."""
    text = read_whole(origin.path, options.max_document_bytes)
    yield "", _with_front_matter(text) or text


def _with_front_matter(text: str) -> Document | None:
    """The document without the settings at its top, between lines of --- (YAML) or +++ (TOML); None without such."""
    found = _FRONT_MATTER.match(text)
    if not found:
        return None
    try:
        said = parse_yaml(found[2]) if found[1] == "---" else tomllib.loads(found[2])
    except (ValueError, RecursionError):
        return None
    rest = text[found.end() :].lstrip("\n")
    if not isinstance(said, dict) or not rest.strip():
        return None
    title, date = (said.get(name) for name in ("title", "date"))
    return Document("", rest, str(title) if title else None, str(date)[:10] if date else None)


def _html_rows(origin: Origin, options: CorpusOptions) -> Rows:
    small = size_of(origin.path) <= _SMALL_PAGE_BYTES and not origin.path.lower().endswith(".gz")
    return html_rows(origin, options) if small else read_apart("afterword.corpus.formats:html_rows", origin, options)


def html_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The one document that a page is."""
    markup = read_whole(origin.path, options.max_document_bytes)
    yield "", problem_of(markup) or read_html(markup)


def _jsonl_rows(origin: Origin, options: CorpusOptions) -> Rows:
    lines = read_lines(origin.path, options.max_document_bytes)
    return ((f"line {number}", _parsed(line, number)) for number, line in lines if not line.isspace())


def _parsed(text: str, line: int = 1) -> Any:
    """A JSON value, or the BadRowError that says why there is none."""
    try:
        return parse_json(text)
    except ValueError as error:  # Also a number of 5,000 digits, 100,000 open brackets.
        return BadRowError("broken", f"not valid JSON: {error}".replace("line 1 column", f"line {line} column"))


def _json_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The list that the file is, the one list of objects in the object it is, or that object."""
    content = _parsed(read_whole(origin.path, 8 * options.max_document_bytes, "8 × max_document_mib"))
    if isinstance(content, BadRowError):
        # Many tools write JSON lines under this ending: after the first row, the rest is too much.
        yield from _jsonl_rows(origin, options) if "Extra data" in str(content) else [("", content)]
        return
    turns = TURN_COLUMNS if options.kind != "documents" else ()
    values = [value for name, value in content.items() if name not in turns] if isinstance(content, dict) else []
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    rows = lists[0] if len(lists) == 1 else content
    if rows is content and isinstance(content, dict):
        rows = [LoneObject(content)]
    yield from numbered(rows if isinstance(rows, list) else [rows])


def _csv_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """Records that are not blank, each with the line it starts on."""
    reader = csv.reader((line for _, line in read_lines(origin.path, options.max_document_bytes)), strict=True)
    records, place = filter(None, reader), "line 1"
    # The limit belongs to the process; the default of 128 KiB is too small for documents.
    limit_before = csv.field_size_limit(options.max_document_bytes)
    try:
        header = next(records, [])
        if twice := [name for name in header if header.count(name) > 1]:
            raise DataError(f"{origin.shown}, line 1: column {twice[0]!r} is there twice. Rename one of them.")
        place = f"line {reader.line_num + 1}"
        for values in records:
            wrong = BadRowError("broken", f"{len(values)} fields where the header has {len(header)}")
            yield place, wrong if len(values) != len(header) else dict(zip(header, values, strict=True))
            place = f"line {reader.line_num + 1}"
    except csv.Error as error:
        problem = f"not valid CSV, or larger than max_document_mib = {options.max_document_mib}: {error}"
        raise DataError(f"{origin.shown}, {place}: {problem}. Repair it, or raise the setting.") from error
    finally:
        csv.field_size_limit(limit_before)


def _parquet_rows(origin: Origin, options: CorpusOptions) -> Rows:
    return read_apart("afterword.corpus.formats:parquet_rows", origin, options)


def parquet_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """Rows of a parquet file, only the columns that are needed."""
    from pyarrow import ArrowException, parquet
    from pyarrow.types import is_string

    with open_bytes(origin.path) as handle:
        try:
            schema = parquet.read_schema(handle)
            columns = columns_to_read(schema.names, options, origin.shown)
            # A text that is there often is in the file once, and is kept so.
            once = [name for name in columns if is_string(schema.field(name).type)]
            table = parquet.ParquetFile(handle, read_dictionary=once, pre_buffer=False)
            # Batches small enough for rows of a few hundred KiB, large enough to be quick.
            batches = table.iter_batches(256, columns=columns, use_threads=False)
            yield from numbered(row for batch in batches for row in _rows_of(batch))
        except ArrowException as error:
            if isinstance(error, MemoryError):
                raise
            raise DataError(f"{origin.shown}: not a readable parquet file: {error}. Write it again.") from error


def _rows_of(batch: Any) -> Iterator[Any]:
    """Rows one by one, so that a text that is there often is in memory once."""
    for number in range(batch.num_rows):
        try:
            yield {name: batch.column(name)[number].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            yield BadRowError("undecodable", f"not valid UTF-8 ({error})")


def _office_rows(reader: str, origin: Origin, options: CorpusOptions) -> Rows:
    uncompressed(origin.path)
    yield from read_apart(reader, origin, options)


_APART = {ending: f"afterword.corpus.office:{ending[1:]}_rows" for ending in OFFICE} | {
    ".pdf": "afterword.corpus.pdf:pdf_rows"
}
Reader = Callable[[Origin, CorpusOptions], Rows]
ENDINGS: dict[str, Reader] = {".txt": _text_rows, ".md": _markdown_rows, ".rst": _text_rows}
ENDINGS |= dict.fromkeys((".html", ".htm"), _html_rows)
ENDINGS |= {
    ending: partial(_office_rows, _APART[ending])
    for ending, package in OFFICE.items()
    if importlib.util.find_spec(package)
}
ROW_ENDINGS = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
ENDINGS |= ROW_ENDINGS


def register_format(ending: str, place: str) -> None:
    """Let this process read files of an ending by the function at `package.module:NAME`.

    ConfigError where there is no such function, Afterword reads such files itself, or no file has such an ending.
    """
    ending = f".{ending.lower().removeprefix('.')}"
    if ending_of(Path(f"a{ending}")) != ending or ending == ".":
        raise ConfigError(f"documents: {ending!r} is not what a name ends in after its last dot. Give memo or .memo.")
    if ending in ENDINGS:
        raise ConfigError(f"documents: {ending!r} is read by Afterword. Give your files another ending.")
    if not is_place(place) or str(place).startswith(("__main__:", "__mp_main__:")):
        rule = "Give package.module:NAME, which another process can import: it reads the files"
        raise ConfigError(f"documents: {place!r} is no place of a function. {rule}.")
    if not callable(imported("documents", place)):
        raise ConfigError(f"documents: {place!r} is no function. Give one that takes a path.")
    registered[ending] = place


def readers_of_others() -> dict[str, Reader]:
    """By ending, what reads the formats that others add."""
    return {ending: partial(read_apart, place, of_others=True) for ending, place in other_formats().items()}
