"""Bytes and text of files: plain or gzip, UTF-8, bounded. No input costs more memory than a few times the limit.

Invalid bytes become lone surrogates, which are refused where documents are gathered.
"""

import errno
import gzip
import io
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from afterword.errors import DataError, printable

_STREAMS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
"""What a shell opened for the process: it does not wait for a writer."""


class BadRowError(ValueError):
    """A row that cannot be used. It stops the run, or is counted; a reader raises it of a whole file.

    `remedy` is what helps against this problem, where it is more than to repair the file.
    """

    def __init__(self, reason: str, problem: str, remedy: str = ""):
        super().__init__(f"{problem}. {remedy}" if remedy else problem)
        self.reason, self.problem, self.remedy = reason, problem, remedy


def ending_of(path: Path) -> str:
    """The lower-case ending that says the format, without .gz: `.txt` for `Notes.TXT.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


@contextmanager
def open_bytes(path: str) -> Generator[IO[bytes]]:
    """The bytes of a file, decompressed if its name ends in .gz. Failures of disk and gzip are DataErrors.

    A pipe or a device is one, too: the first may wait for ever, the second may never end.
    """
    opener = gzip.open if path.lower().endswith(".gz") else open
    try:
        if not is_file(path):
            raise DataError(f"{path}: is a pipe, a socket or a device, not a file. Write what it gives to a file.")
        with opener(path, "rb") as handle:
            yield handle  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        refuse(error, path)


def is_file(path: str | Path) -> bool:
    """Whether it is a file with an end. An OSError where it is not there."""
    return stat.S_ISREG(os.stat(path).st_mode) or str(path).startswith(_STREAMS)


def size_of(path: str) -> int:
    """Bytes of a file on the disk. A DataError where it is not there."""
    try:
        return os.path.getsize(path)
    except OSError as error:
        refuse(error, path)


def refuse(error: Any, path: str | None = None) -> NoReturn:
    """Say that a file cannot be opened, read or decompressed."""
    problem = f"{path or error.filename}: cannot be read: {getattr(error, 'strerror', None) or error}."
    raise DataError(f"{problem} Check the path, its permissions, and that a .gz file is whole.") from error


def read_lines(path: str, max_bytes: int, setting: str = "max_document_mib") -> Iterator[tuple[int, str]]:
    """Numbered lines, which all end in \\n. One over `max_bytes` is a DataError as soon as so much is read."""
    with open_bytes(path) as handle:
        lines = io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape")
        for number, line in enumerate(iter(lambda: lines.readline(max_bytes + 1), ""), start=1):
            if len(line) > max_bytes:
                raise too_large(f"{path}, line {number}", max_bytes, setting)
            yield number, _checked(line, number)


def read_whole(path: str, max_bytes: int, setting: str = "max_document_mib") -> str:
    """The whole file, with \\n as line ends, so that a paragraph is a paragraph on any system."""
    with open_bytes(path) as handle:
        text = io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape").read(max_bytes + 1)
    if len(text) > max_bytes:
        raise too_large(path, max_bytes, setting)
    return _checked(text, 1)


def read_settings_file(path: Path, max_bytes: int) -> str:
    """The UTF-8 text of a file of settings. OSError or ValueError where there is none, or it is larger than that."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not is_file(path):
        raise ValueError("it is a pipe or a device, not a file")
    with path.open("rb") as handle:
        content = handle.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes / 2**20:.4g} MiB")
    return content.decode("utf-8-sig")


def _checked(text: str, line: int) -> str:
    if "\0" in text:
        problem = f"NUL in or after line {line}, which looks like a binary file, or like UTF-16"
        raise BadRowError("undecodable", problem, "Convert UTF-16 (iconv -f UTF-16 -t UTF-8)")
    return text


def too_large(place: str, max_bytes: int, setting: str = "max_document_mib") -> DataError:
    """What is said of a document, line or file over the limit."""
    problem = f"{place}: larger than {setting} = {max_bytes / 2**20:.4g}. Documents are never cut:"
    return DataError(f"{problem} raise the setting, split the document, or write rows as JSON lines (.jsonl).")


def shown_name(path: str | Path) -> str:
    """A file's name on one line: control characters and bytes that are not UTF-8 as escapes."""
    return printable(str(path), kept="")


def problem_of(text: str) -> BadRowError | None:
    """Why a text cannot be used, if it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        problem = f"character {error.start} of the text is not valid Unicode ({text[error.start]!a}, its line {line})"
        return BadRowError("undecodable", problem, "Convert a file that is not UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)")
    return None if text.strip() else BadRowError("empty", "nothing but whitespace")
