"""Files in: one reader for each ending, all yielding documents and skipped rows with their place.

A reader never decides whether a bad row stops the run; it says what is wrong, and where.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from afterword.corpus.columns import Found, Origin, Record, find_columns, read_rows
from afterword.corpus.html import MarkupError, text_of_html
from afterword.corpus.lines import Line, UndecodableError, decode, open_bytes, read_lines, read_whole, too_large
from afterword.corpus.options import CorpusOptions
from afterword.errors import DataError
from afterword.types import Document, Skipped

Rows = Iterator[tuple[int, Any] | Skipped]

_MAX_JSON_BYTES = 512 * 2**20
_PARQUET_ROWS = 256  # A batch: small enough for rows of a few hundred KiB, large enough to be quick.


def ending_of(path: Path) -> str:
    """The lower-case ending that says the format, without .gz: `.txt` for `Notes.TXT.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def read_file(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    """Documents of one file, of one of the `ENDINGS`."""
    return ENDINGS[ending_of(origin.path)](origin, options)


def _read_text(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    text = _whole_text(origin, options)
    if isinstance(text, Skipped):
        yield text
    else:
        yield Found(Document(origin.name, text, source=origin.source), origin.shown, origin.name)


def _read_html(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    markup = _whole_text(origin, options)
    try:
        title, text = (None, markup) if isinstance(markup, Skipped) else text_of_html(markup)
    except MarkupError as error:
        text = Skipped(origin.shown, origin.name, "broken", str(error))
    if isinstance(text, Skipped):
        yield text
    else:
        yield Found(Document(origin.name, text, title, source=origin.source), origin.shown, origin.name)


def _whole_text(origin: Origin, options: CorpusOptions) -> str | Skipped:
    """The file as one text. Line ends become \\n, so that a paragraph is a paragraph on any system."""
    raw = read_whole(origin.path, max_bytes=options.max_document_bytes)
    if raw is None:
        raise too_large(origin.shown, options.max_document_bytes)
    try:
        text = decode(Line(1, 0, raw))
    except UndecodableError as error:
        return Skipped(origin.shown, origin.name, "undecodable", str(error))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_jsonl(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    origin = _by_line(origin)
    return read_rows(_jsonl_rows(origin, options), origin, options)


def _jsonl_rows(origin: Origin, options: CorpusOptions) -> Rows:
    for line in read_lines(origin.path, max_bytes=options.max_document_bytes):
        if line.raw.isspace():
            continue
        try:
            yield line.number, json.loads(decode(line))
        except UndecodableError as error:
            yield origin.skipped(line.number, "undecodable", str(error))
        except json.JSONDecodeError as error:
            detail = f"not valid JSON: {error.msg} at column {error.colno}"
            yield origin.skipped(line.number, "broken", detail)
        except (ValueError, RecursionError) as error:  # A number of 5,000 digits, 100,000 open brackets.
            yield origin.skipped(line.number, "broken", f"not usable JSON: {error}")


def _read_json(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    if _holds_json_lines(origin.path, options):
        return _read_jsonl(origin, options)
    return read_rows(_json_rows(origin, options), origin, options)


def _holds_json_lines(path: Path, options: CorpusOptions) -> bool:
    """True where the first line is an object by itself and is not the last."""
    limit = options.max_document_bytes
    with open_bytes(path) as handle:
        lines = (raw for raw in iter(lambda: handle.readline(limit + 1), b"") if not raw.isspace())
        first, second = next(lines, b""), next(lines, b"")
    if len(first) > limit or not second:
        return False
    try:
        return isinstance(json.loads(decode(Line(1, 0, first))), dict)
    except (ValueError, RecursionError):
        return False


def _json_rows(origin: Origin, options: CorpusOptions) -> Rows:
    raw = read_whole(origin.path, max_bytes=_MAX_JSON_BYTES)
    if raw is None:
        raise DataError(
            f"{origin.shown}: larger than {_MAX_JSON_BYTES // 2**20} MiB, the limit of .json files, which "
            "have to be in memory whole. Convert it to JSON lines (.jsonl), one row a line."
        )
    try:
        content = json.loads(decode(Line(1, 0, raw)))
    except UndecodableError as error:
        yield Skipped(origin.shown, origin.name, "undecodable", str(error))
        return
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{origin.shown}, {place}: not valid JSON: {error.msg}. Repair the file.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin.shown}: not usable JSON: {error}. Repair the file.") from error
    yield from enumerate(_rows_in(content, origin, options))


def _rows_in(content: Any, origin: Origin, options: CorpusOptions) -> list[Any]:
    """The rows of a JSON file: the list it is, the one list in the object it is, or that object."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise DataError(f"{origin.shown}: holds a single value. A JSON file must be a list of rows.")
    lists = {key: value for key, value in content.items() if _is_rows(value)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    if any(isinstance(value, str) for value in content.values()):
        find_columns(tuple(content), options, origin.shown)
        return [content]
    keys = ", ".join(list(lists or content)[:5])
    found = f"{len(lists)} lists of rows" if lists else f"{len(content)} keys and no list of rows"
    raise DataError(
        f"{origin.shown}: an object with {found} ({keys}, …). A JSON file must be a list of rows, or an "
        "object with one such list: write the rows as JSON lines (.jsonl), one object a line."
    )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _read_csv(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    origin = _by_line(origin)
    return read_rows(_csv_rows(origin, options), origin, options)


def _csv_rows(origin: Origin, options: CorpusOptions) -> Rows:
    header: list[str] = []
    for number, values in _csv_values(origin, options):
        if isinstance(values, Skipped):
            yield values
        elif not header:
            header = _checked_header(values, origin)
        elif len(values) != len(header):
            detail = f"{len(values)} fields where the header has {len(header)}"
            yield origin.skipped(number, "broken", detail)
        else:
            yield number, dict(zip(header, values, strict=True))


def _csv_values(origin: Origin, options: CorpusOptions) -> Iterator[tuple[int, list[str] | Skipped]]:
    """Fields of each record that is not blank, and the line it starts on."""
    # The limit belongs to the process; the default of 128 KiB is too small for documents.
    limit_before = csv.field_size_limit(options.max_document_bytes)
    lines = read_lines(origin.path, max_bytes=options.max_document_bytes)
    reader = csv.reader((decode(line, keep_invalid=True) for line in lines), strict=True)
    start, values = 1, []
    try:
        while values is not None:
            start = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                if "field limit" in str(error):
                    raise too_large(f"{origin.shown}, line {start}", options.max_document_bytes) from error
                yield start, origin.skipped(start, "broken", f"not valid CSV: {error}")
                continue
            if values:
                yield start, values
    except UndecodableError as error:
        yield start, origin.skipped(start, "undecodable", str(error))
    finally:
        csv.field_size_limit(limit_before)


def _checked_header(values: list[str], origin: Origin) -> list[str]:
    twice = sorted({name for name in values if values.count(name) > 1})
    if twice:
        raise DataError(f"{origin.shown}, line 1: column {twice[0]!r} is there twice. Rename one of them.")
    return values


def _read_parquet(origin: Origin, options: CorpusOptions) -> Iterator[Record]:
    return read_rows(_parquet_rows(origin, options), origin, options)


def _parquet_rows(origin: Origin, options: CorpusOptions) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_bytes(origin.path) as handle:
        try:
            table = pq.ParquetFile(_seekable(handle, origin.path))
            columns = find_columns(table.schema_arrow.names, options, origin.shown)
            number = 0
            for batch in table.iter_batches(_PARQUET_ROWS, columns=list(dict.fromkeys(columns.values()))):
                yield from enumerate(batch.to_pylist(), start=number)
                number += batch.num_rows
        except pa.ArrowException as error:
            raise DataError(f"{origin.shown}: not a readable parquet file: {error}. Write it again.") from error


def _seekable(handle: IO[bytes], path: Path) -> IO[bytes]:
    """Parquet is read from its end, which in a gzip file means decompressing it first, to disk."""
    if path.suffix.lower() != ".gz":
        return handle
    spooled = tempfile.TemporaryFile()  # noqa: SIM115 - closed, and so deleted, with the reader that holds it
    shutil.copyfileobj(handle, spooled)
    spooled.seek(0)
    return spooled


def _by_line(origin: Origin) -> Origin:
    return Origin(origin.shown, origin.name, origin.source, origin.path, unit="line")


ENDINGS: dict[str, Callable[[Origin, CorpusOptions], Iterator[Record]]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".rst": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
