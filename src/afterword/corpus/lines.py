"""Bytes in: files, plain or gzip, read whole or line by line up to a limit, and decoded as UTF-8.

Every error names the file and the place in it, and no input costs more memory than the limit.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from afterword.errors import DataError

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UndecodableError(ValueError):
    """Bytes that are not UTF-8 text. Readers turn it into a skipped row, which stops or is counted."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, undecoded, with its line end."""

    number: int
    """Counted from 1."""
    offset: int
    """Of its first byte in the (decompressed) file."""
    raw: bytes


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed if its name ends in .gz. Failures of disk and gzip are DataErrors."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as handle:
            yield handle  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch or compress it again.") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path | str, error: OSError) -> DataError:
    """What is said when the system refuses to open or read `path`."""
    reason = error.strerror or str(error)
    return DataError(f"{path}: cannot be read: {reason}. Check the path and its permissions.")


def read_lines(path: Path, *, max_bytes: int) -> Iterator[Line]:
    """The lines of a file. A line of more than `max_bytes` is a DataError as soon as so much is read."""
    with open_bytes(path) as handle:
        number, offset = 1, 0
        while raw := handle.readline(max_bytes + 1):
            if len(raw) > max_bytes:
                raise too_large(f"{path}, line {number}", max_bytes)
            yield Line(number, offset, raw)
            number, offset = number + 1, offset + len(raw)


def read_whole(path: Path, *, max_bytes: int) -> bytes | None:
    """The whole file, or None where it is larger than `max_bytes`."""
    with open_bytes(path) as handle:
        raw = handle.read(max_bytes + 1)
    return None if len(raw) > max_bytes else raw


def decode(line: Line, *, keep_invalid: bool = False) -> str:
    """The text of a line, without a byte order mark. Raises UndecodableError with byte, line and remedy.

    `keep_invalid` leaves invalid bytes in as lone surrogates, for a reader that must see the line ends
    first; a text with such a character is found, and refused, where documents are gathered.
    """
    raw, offset = line.raw, line.offset
    if offset == 0 and raw.startswith(_UTF16_MARKS):
        raise UndecodableError("the file is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
    if (nul := raw.find(b"\0")) >= 0:
        raise UndecodableError(f"byte {offset + nul} is NUL, which looks like a binary file, not text")
    if offset == 0 and raw.startswith(codecs.BOM_UTF8):
        raw, offset = raw[3:], 3
    try:
        return raw.decode("utf-8", "surrogateescape" if keep_invalid else "strict")
    except UnicodeDecodeError as error:
        at = line.number + raw.count(b"\n", 0, error.start)
        raise UndecodableError(
            f"byte {offset + error.start} (line {at}, 0x{raw[error.start]:02x}) is not valid UTF-8. "
            "Convert the file, for example: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def too_large(place: str, max_bytes: int) -> DataError:
    """What is said of a document or line over the limit."""
    return DataError(
        f"{place}: larger than max_document_mib = {max_bytes / 2**20:.4g}. Documents are never cut: "
        "raise the setting, or split the document."
    )
