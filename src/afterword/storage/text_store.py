"""Texts that a model wrote, kept so that none is written twice: JSON lines in a file that only grows."""

import json
from pathlib import Path
from typing import Self

from afterword.errors import DataError
from afterword.storage.hashes import json_sha256
from afterword.storage.parsing import parse_json

_SHOWN = 200
"""Characters of a key that a line shows, so that a person sees what its text follows from."""


class TextStore:
    """Texts by what they were written from: a prompt, a document, whatever a text follows from beside the model.

    A text is on the disk as soon as it is added. A line that a killed process left half is cut off when the store is
    opened again; every other line counts. For one process at a time, and one text in memory at a time.
    """

    def __init__(self, path: Path, follows_from: str = ""):
        """`follows_from` is part of every key: what all texts follow from. DataError for a damaged file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._follows_from = path, follows_from
        self._places: dict[str, int] = {}
        self._file = path.open("a+b")
        self._file.truncate(self._indexed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return self._name(key) in self._places

    def __getitem__(self, key: str) -> str:
        """The text of a key. KeyError where none was added."""
        self._file.seek(self._places[self._name(key)])
        return str(parse_json(self._file.readline().decode())["text"])

    def add(self, key: str, text: str) -> None:
        """Keep the text of a key for good. ValueError where there is one: what was read of it would no longer hold."""
        if key in self:
            raise ValueError(f"{self._path}: has a text of this key already: {key[:80]!r}")
        name = self._name(key)
        place = self._file.seek(0, 2)
        self._file.write(json.dumps({"key": name, "of": key[:_SHOWN], "text": text}).encode() + b"\n")
        self._file.flush()
        self._places[name] = place

    def _name(self, key: str) -> str:
        return json_sha256([self._follows_from, key])

    def _indexed(self) -> int:
        """Find every text's place; the bytes that whole lines take."""
        place = self._file.seek(0)
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                self._places[parse_json(line.decode())["key"]] = place
            except (ValueError, KeyError, TypeError) as error:
                problem = f"{self._path}, line {number}: is damaged ({error})"
                raise DataError(f"{problem}. Remove the line; its text is then written again.") from error
            place += len(line)
        return place
