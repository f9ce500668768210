"""Files of JSON objects, one a line: plain or .gz, in bounded memory, every problem with file and line."""

from pathlib import Path
from typing import Any, cast

from afterword.errors import DataError
from afterword.storage.files import BadRowError, problem_of, read_lines
from afterword.storage.parsing import parse_json

Row = tuple[str, dict[str, Any]]
"""Where it stands (`file:line`), and what stands there."""
_LINE_BYTES = 16 * 2**20
_FILE_CHARACTERS = 2**30
"""A suite of a million items has some hundred MB; more is no suite, but what a few KB of gzip can come to."""


def read_rows(path: Path, rule: str) -> list[Row]:
    """The objects of a file; blank lines are passed over. DataError, with the rule, for what is none."""
    rows, characters = list[Row](), 0
    try:
        for number, line in read_lines(str(path), _LINE_BYTES, "the limit of a line, in MiB,"):
            characters += len(line)
            if characters > _FILE_CHARACTERS:
                raise DataError(f"{path}: more than {_FILE_CHARACTERS // 2**20} MiB of text. {rule}")
            if not line.isspace():
                rows.append(_row(line, f"{path}:{number}", rule))
    except BadRowError as error:
        raise DataError(f"{path}: {error}. {rule}") from error
    return rows


def _row(line: str, where: str, rule: str) -> Row:
    if (problem := problem_of(line)) and problem.reason == "undecodable":
        raise DataError(f"{where}: not valid UTF-8 ({problem}). {rule}")
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: broken JSON ({error}). {rule}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object. {rule}")
    return where, cast("dict[str, Any]", row)
