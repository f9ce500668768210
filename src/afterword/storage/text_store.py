"""Texts that models wrote, kept so that none is written twice: JSON lines in a file that only grows.

The one rule: what several processes add at once, and what a process adds when it is killed or the disk is full, leaves
every text readable that was added before.
"""

import contextlib
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from afterword.errors import DataError, TrainingError, is_disk_full
from afterword.storage import byte_locks
from afterword.storage.hashes import text_sha256
from afterword.storage.locks import say_waiting
from afterword.storage.parsing import parse_json

_KEY, _PART = "key", "part"
_LOCKS = 2**40
"""Bytes behind the end of any store. The first is locked by the process that adds rows, and one for each key by the
process that writes its text: such locks leave no file, and end with their process, however that ends."""
_CHUNK = 2**20
_AS_BYTES = getattr(os, "O_BINARY", 0)
"""Windows would have line ends of two bytes otherwise, and rows where none is looked for."""

Row = Mapping[str, Any]
"""A text and what is to be known of it, by name; `key` is what it is found by."""


class TextStore:
    """Rows by key: a file for any number of processes, with one row in memory at a time.

    Rows that are added together are there together or not at all: what a killed process left of them is cut off. They
    are with the operating system as soon as they are added.
    """

    def __init__(self, path: Path):
        """The file is made, and its folder. DataError for a damaged file, TrainingError where none can be made."""
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        with _said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # One descriptor: closing another one of the same file would give up the locks.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | _AS_BYTES, 0o666)
        self.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The row of a key. KeyError where none was added, as far as the file was read."""
        place, size = self._places[key]
        return self._parsed(b"".join(self._read(place, place + size)), place)

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows for good, together. One whose key another process added meanwhile is left out: the first one stays.

        TrainingError where they cannot be written, as on a full disk; the file is then as it was.
        """
        self._lock(0, wait=True)
        try:
            self.refresh()
            new = {str(row[_KEY]): row for row in rows if row[_KEY] not in self._places}
            lines = [_line({**row, _PART: [n, len(new)]}) for n, row in enumerate(new.values(), start=1)]
            with _said(self.path):
                # Behind it stands at most what a process left that was killed.
                os.ftruncate(self._file, self._end)
                self._write(b"".join(lines))
        except TrainingError:
            os.ftruncate(self._file, self._end)
            raise
        finally:
            self._give_free(0)
        for key, line in zip(new, lines, strict=True):
            self._places[key] = (self._end, len(line))
            self._end += len(line)

    def refresh(self) -> None:
        """Find what other processes have added since."""
        found, end = dict[str, tuple[int, int]](), self._end
        for line in self._lines(end):
            row = self._parsed(line, end)
            found[row[_KEY]] = (end, len(line))
            end += len(line)
            number, of = row[_PART]
            if number == of:
                self._places |= found
                self._end, found = end, {}

    @contextlib.contextmanager
    def claimed(self, keys: Sequence[str], *, wait: bool = False) -> Generator[list[str]]:
        """Those of the keys that have no row and that no other process writes now; others pass over them meanwhile.

        With `wait`, all that have no row once the others are done. Where a file system has no locks, nothing is passed
        over, and of what two processes write the first is kept.
        """
        self.refresh()
        # In one order, so that no two processes wait for each other.
        mine = [key for key in sorted(keys) if key not in self._places and self._lock(_lock_of(key), wait=wait)]
        try:
            # Another process may have written it, and given it free, before it was claimed.
            self.refresh()
            yield [key for key in mine if key not in self._places]
        finally:
            for key in mine:
                self._give_free(_lock_of(key))

    def _lock(self, number: int, *, wait: bool) -> bool:
        """Whether this process has that lock now; also where there are none."""
        with contextlib.suppress(OSError):
            if byte_locks.take(self._file, _LOCKS + number, wait=False):
                return True
            if not wait:
                return False
            if number:
                say_waiting("writes the same texts", self.path)
            byte_locks.take(self._file, _LOCKS + number, wait=True)
        return True

    def _give_free(self, number: int) -> None:
        with contextlib.suppress(OSError):
            byte_locks.give_free(self._file, _LOCKS + number)

    def _write(self, content: bytes) -> None:
        """All of it: a write may stop in the midst where the disk becomes full, and only the next one says so."""
        os.lseek(self._file, self._end, os.SEEK_SET)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def _read(self, place: int, end: int | None = None) -> Iterator[bytes]:
        """What stands from there to there, or to the end of the file."""
        while end is None or place < end:
            os.lseek(self._file, place, os.SEEK_SET)
            chunk = os.read(self._file, _CHUNK if end is None else end - place)
            if not chunk:
                return
            place += len(chunk)
            yield chunk

    def _lines(self, place: int) -> Iterator[bytes]:
        """Whole lines from there on; what has no end yet is none."""
        rest = b""
        for chunk in self._read(place):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in whole)

    def _parsed(self, line: bytes, place: int) -> dict[str, Any]:
        try:
            row = parse_json(line.decode())
            number, of = row[_PART]
            if not (isinstance(row[_KEY], str) and isinstance(number, int) and isinstance(of, int)):
                raise ValueError("it has no key or no part")
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{self.path}, byte {place}: the line is damaged ({error})"
            raise DataError(f"{problem}. Remove it; its text is then written again.") from error
        return cast("dict[str, Any]", row)


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _lock_of(key: str) -> int:
    return 1 + int(text_sha256(key)[:10], 16)


@contextlib.contextmanager
def _said(path: Path) -> Generator[None]:
    """That the store cannot be written, and what helps."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else str(error.strerror or error)
        what = "Make room" if is_disk_full(error) else "Check the folder and its permissions"
        problem = f"{path}: texts that were written cannot be stored ({reason})"
        raise TrainingError(f"{problem}. {what}, and give the same command again: it goes on from there.") from error
