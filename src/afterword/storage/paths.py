"""Paths: the home folder, the cache, a name nearly right, and where nothing can be written."""

import os
import re
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

_HOME = re.compile(r"~[\w.-]*[/\\]")


def cache_folder(part: str) -> Path | None:
    """`part` of $AFTERWORD_CACHE, else of ~/.cache/afterword; None where the variable says off."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "afterword"
    folder = os.environ.get("AFTERWORD_CACHE") or usual
    return None if folder == "off" else Path(folder).expanduser() / part


def at_home(value: Any) -> Any:
    """A value of settings in which every text that starts like `~/` or `~someone/` starts with that home folder.

    >>> at_home(["~", "~ 5 km", 3])
    ['~', '~ 5 km', 3]
    """
    if isinstance(value, str):
        return os.path.expanduser(value) if _HOME.match(value) else value
    if isinstance(value, Path):
        return value.expanduser()
    if isinstance(value, list | tuple):
        items = [at_home(item) for item in cast("Sequence[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {name: at_home(item) for name, item in cast("dict[Any, Any]", value).items()}
    return value


def neighbour(name: str) -> str:
    """`Did you mean …? ` for a path that is nearly one that exists, or nothing."""
    folder, _, last = name.rstrip("/").rpartition("/")
    try:
        near = get_close_matches(last, os.listdir(folder or ("/" if name.startswith("/") else ".")), n=1, cutoff=0.7)
    except OSError:
        return ""
    return f"Did you mean {name.rstrip('/').removesuffix(last)}{near[0]}? " if last and near else ""


def unwritable(folder: Path) -> Path | None:
    """Where a folder that is to be written stands, if nothing can be written there: itself, or the nearest above it."""
    parent = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        # Tried, not asked: os.access says yes to root also where the file system says no.
        tempfile.TemporaryFile(dir=parent).close()
    except OSError:
        return parent
    return None


def plain_name(path: str | Path) -> str:
    """What a folder is called, in letters that a file, a shell and ollama take as they are.

    >>> plain_name("runs/My docs (2)/")
    'My-docs-2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).expanduser().resolve().name).strip("-.") or "model"
