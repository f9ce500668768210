"""Formats of others: an ending of files, and the function that reads one.

A package adds them by entry points of the group `afterword.documents` (the name is the ending without its dot), Python
code by `register_format`. The function takes the path of a file and gives a text, a Document, or several texts,
Documents or rows. It runs in a process of its own, as every reader does that is large or made for other files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from afterword import plugins
from afterword.corpus.rows import Rows, numbered
from afterword.storage.files import BadRowError, ending_of
from afterword.types import Document

registered: dict[str, str] = {}
"""What this process was told, as `other_formats` gives it."""


def other_formats() -> dict[str, str]:
    """By ending, the place of the function that reads such a file, as `package.module:NAME`."""
    added = {f".{name.lower()}": f"{point.module}:{point.attr}" for name, point in plugins.added("documents").items()}
    return {**added, **registered}


def rows_of(made: object) -> Rows:
    """The rows that a function of others gave for a file."""
    if isinstance(made, str | Document | Mapping):
        yield "", made
    elif isinstance(made, Iterable) and not isinstance(made, bytes):
        yield from numbered(cast("Iterable[Any]", made))
    else:
        rule = "a text, a Document, or several texts, Documents or rows"
        raise BadRowError("broken", f"its reader gave a {type(made).__name__}, not {rule}")


def uncompressed(path: str) -> Path:
    """The path for a reader that opens files itself, which reads no compressed ones."""
    if path.lower().endswith(".gz"):
        raise BadRowError("broken", f"{ending_of(Path(path))} files are not read compressed", "Unpack it")
    return Path(path)
