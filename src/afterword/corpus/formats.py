"""Files in: one reader for each ending, all yielding rows with their place. Plain or gzip, and UTF-8.

A reader says what is wrong and where, and never whether a bad row stops the run. No input costs more memory
than a few times the limit. Invalid bytes become lone surrogates, which are refused where documents are gathered.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from afterword.corpus.columns import CorpusOptions, columns_to_read
from afterword.corpus.dialogues import TURN_COLUMNS
from afterword.corpus.rows import BadRowError, Origin, Rows, numbered, problem_of
from afterword.errors import DataError
from afterword.types import Document

_SEPARATED_TAGS = {
    "\n\n": "address article aside blockquote body dl div fieldset figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr main nav ol p pre section table ul",
    "\n": "br caption dd dt figcaption li option tr",
    "  ": "td th",
}
_KEPT_SPACE = "\N{NO-BREAK SPACE}"  # Stands for the spaces inside <pre> until the lines are trimmed.


def ending_of(path: Path) -> str:
    """The lower-case ending that says the format, without .gz: `.txt` for `Notes.TXT.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if its name ends in .gz. Failures of disk and gzip are DataErrors."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as handle:
            yield handle  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        refuse(error, path)


def refuse(error: Any, path: str | None = None) -> NoReturn:
    """Say that a file cannot be opened, read or decompressed."""
    problem = f"{path or error.filename}: cannot be read: {getattr(error, 'strerror', None) or error}."
    raise DataError(f"{problem} Check the path, its permissions, and that a .gz file is whole.") from error


def read_lines(path: str, max_bytes: int) -> Iterator[tuple[int, str]]:
    """Numbered lines, which all end in \\n. One over `max_bytes` is a DataError as soon as so much is read."""
    with open_bytes(path) as handle:
        lines = io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape")
        for number, line in enumerate(iter(lambda: lines.readline(max_bytes + 1), ""), start=1):
            if len(line) > max_bytes:
                raise too_large(f"{path}, line {number}", max_bytes)
            yield number, _checked(line, number)


def read_whole(path: str, max_bytes: int, setting: str = "max_document_mib") -> str:
    """The whole file, with \\n as line ends, so that a paragraph is a paragraph on any system."""
    with open_bytes(path) as handle:
        text = io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape").read(max_bytes + 1)
    if len(text) > max_bytes:
        raise too_large(path, max_bytes, setting)
    return _checked(text, 1)


def _checked(text: str, line: int) -> str:
    if "\0" in text:
        problem = f"NUL in or after line {line}, which looks like a binary file, or like UTF-16."
        raise BadRowError("undecodable", f"{problem} Convert UTF-16: iconv -f UTF-16 -t UTF-8")
    return text


def too_large(place: str, max_bytes: int, setting: str = "max_document_mib") -> DataError:
    """What is said of a document, line or file over the limit."""
    problem = f"{place}: larger than {setting} = {max_bytes / 2**20:.4g}. Documents are never cut:"
    return DataError(f"{problem} raise the setting, split the document, or write rows as JSON lines (.jsonl).")


def _text_rows(origin: Origin, options: CorpusOptions) -> Rows:
    yield "", read_whole(origin.shown, options.max_document_bytes)


def _html_rows(origin: Origin, options: CorpusOptions) -> Rows:
    markup = read_whole(origin.shown, options.max_document_bytes)
    yield "", problem_of(markup) or _read_html(markup)


def _read_html(markup: str) -> Document:
    """Title and readable text. Blocks are separated by blank lines, list items and rows by line ends."""
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    try:
        soup = BeautifulSoup(markup, "html.parser")
    except ParserRejectedMarkup as error:
        raise BadRowError("broken", f"not readable as HTML: {error}") from error
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    for tag in soup.find_all(["script", "style", "noscript", "template", "title"]):
        tag.decompose()
    for string in list(soup.strings):
        # Line ends of the source mean nothing outside <pre>, and everything inside.
        pattern, kept = (" ", _KEPT_SPACE) if string.find_parent("pre") else (r"\s+", " ")
        string.replace_with(re.sub(pattern, kept, string))
    for separator, names in _SEPARATED_TAGS.items():
        for tag in soup.find_all(names.split()):
            tag.insert_before(separator)
            tag.insert_after(separator if separator == "\n\n" else "")
    trimmed = re.sub(r" *\n *", "\n", soup.get_text().strip(" \n")).replace(_KEPT_SPACE, " ").rstrip()
    return Document("", re.sub(r"\n{3,}", "\n\n", trimmed), title)


def _jsonl_rows(origin: Origin, options: CorpusOptions) -> Rows:
    lines = read_lines(origin.shown, options.max_document_bytes)
    return ((f"line {number}", _parsed(line, number)) for number, line in lines if not line.isspace())


def _parsed(text: str, line: int = 1) -> Any:
    """A JSON value, or the BadRowError that says why there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # Also a number of 5,000 digits, 100,000 open brackets.
        return BadRowError("broken", f"not valid JSON: {error}".replace("line 1 column", f"line {line} column"))


def _json_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The list that the file is, the one list of objects in the object it is, or that object."""
    content = _parsed(read_whole(origin.shown, 8 * options.max_document_bytes, "8 × max_document_mib"))
    if isinstance(content, BadRowError):
        # Many tools write JSON lines under this ending: after the first row, the rest is too much.
        yield from _jsonl_rows(origin, options) if "Extra data" in str(content) else [("", content)]
        return
    turns = TURN_COLUMNS if options.kind != "documents" else ()
    values = [value for name, value in content.items() if name not in turns] if isinstance(content, dict) else []
    lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    rows = lists[0] if len(lists) == 1 else content
    yield from numbered(rows if isinstance(rows, list) else [rows])


def _csv_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """Records that are not blank, each with the line it starts on."""
    reader = csv.reader((line for _, line in read_lines(origin.shown, options.max_document_bytes)), strict=True)
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
    from pyarrow import ArrowException, parquet

    with open_bytes(origin.shown) as handle:
        try:
            table = parquet.ParquetFile(handle)
            columns = columns_to_read(table.schema_arrow.names, options, origin.shown)
            # Batches small enough for rows of a few hundred KiB, large enough to be quick.
            batches = table.iter_batches(256, columns=columns)
            yield from numbered(row for batch in batches for row in batch.to_pylist())
        except ArrowException as error:
            raise DataError(f"{origin.shown}: not a readable parquet file: {error}. Write it again.") from error


ENDINGS: dict[str, Callable[[Origin, CorpusOptions], Rows]] = dict.fromkeys((".txt", ".md", ".rst"), _text_rows)
ENDINGS |= dict.fromkeys((".html", ".htm"), _html_rows)
ROW_ENDINGS = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
ENDINGS |= ROW_ENDINGS
