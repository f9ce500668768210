"""Files of JSON objects, one a line: read whole, plain or .gz, every problem with file and line."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from afterword.errors import DataError

Row = tuple[str, dict[str, Any]]
"""Where it stands (`file:line`), and what stands there."""


def read_rows(path: Path, rule: str) -> list[Row]:
    """The objects of a file; blank lines are passed over. DataError, with the rule, for what is none."""
    try:
        lines = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Give a .jsonl or .jsonl.gz file.") from error
    return [_row(line, f"{path}:{number}", rule) for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: bytes, where: str, rule: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        problem = "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else "broken JSON"
        raise DataError(f"{where}: {problem} ({error}). {rule}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object. {rule}")
    return where, row
