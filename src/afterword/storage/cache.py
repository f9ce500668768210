"""Folders of models in the cache: made once by one process, whole or not there, found by every other."""

import functools
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from afterword.errors import CheckpointError
from afterword.storage.atomic import is_complete, publish, staging_folder
from afterword.storage.hashes import file_sha256
from afterword.storage.locks import held
from afterword.storage.paths import cache_folder


def models_folder() -> Path:
    """Where models are kept. CheckpointError where the cache is off."""
    folder = cache_folder("models")
    if folder is None:
        problem = "AFTERWORD_CACHE: 'off' leaves no place for a model that is fetched or dequantised"
        raise CheckpointError(f"{problem}. Give a folder, or leave it out for ~/.cache/afterword.")
    return folder


def made_once(name: str, make: Callable[[Path], None], console: Console) -> Path:
    """The folder `name` of the cache. Where it is not there whole, `make` fills an empty one in its place.

    One process at a time; others wait, say so, and take what it made.
    """
    target = models_folder() / name
    if _is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(f"{name}.lock"), lambda: _say_waiting(name, console)):
            if not is_complete(target):
                staging = staging_folder(target)
                try:
                    make(staging)
                    publish(staging, target)
                finally:
                    # Published, it is no longer there.
                    shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        problem = f"the cache {str(target.parent)!r} cannot be written ({error.strerror or error})"
        raise CheckpointError(
            f"{problem}. Make room or give access, or set AFTERWORD_CACHE to another folder."
        ) from error
    return target


def _say_waiting(name: str, console: Console) -> None:
    console.print(f"{name}: waiting for another process that makes it", markup=False, highlight=False)


@functools.cache
def _whole(folder: Path, _made: int) -> bool:
    return is_complete(folder)


def _is_whole(folder: Path) -> bool:
    """Whether every file is as it was written. Told once a process: that reads the weights."""
    return folder.is_dir() and _whole(folder, folder.stat().st_mtime_ns)


def remembered_sha256(file: Path) -> str:
    """Of a file's content, read once for each size and time of change: a GGUF file may have many gigabytes."""
    seen = file.stat()
    place = f"{file.resolve()}|{seen.st_size}|{seen.st_mtime_ns}"
    note = models_folder() / "seen" / hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
    try:
        return note.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        found = file_sha256(file)
    with suppress(OSError):  # It is read again next time.
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(found, encoding="ascii")
    return found
