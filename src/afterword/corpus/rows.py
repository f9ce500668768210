"""Rows on their way to documents: each with its place, where it comes from, and why it cannot be used."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from afterword.storage.files import BadRowError
from afterword.types import Document


class LoneObject(dict[str, Any]):
    """The one object that a .json file is: a document, or the configuration of a tool."""


Rows = Iterator[tuple[str, Any]]
"""Each with its place (`line 3`, `row 2`, empty where it is a whole file); an object, a Document, the text
itself, or the BadRowError that is there instead."""


class Origin(NamedTuple):
    """Where rows come from, as errors, ids and counts name it."""

    shown: str
    """For messages: the path, or the data-set id, in characters that can be shown."""
    name: str
    """For ids: the path relative to the given folder, or the file name, in such characters."""
    source: str
    """The source as given, under which its documents are counted, in such characters."""
    path: str = ""
    """The path as it is opened; nothing for what is in no file."""


Record = tuple[Document | BadRowError, str, str]
"""A document, or why there is none; the file or data set it was in, as shown; and where in it."""


def numbered(rows: Iterable[Any]) -> Rows:
    """Rows that are in no lines count from 0, as an index."""
    return ((f"row {number}", row) for number, row in enumerate(rows))
