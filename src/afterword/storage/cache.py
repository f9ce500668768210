"""Folders of models in the cache: made once by one process, whole or not there, found by every other."""

import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
from rich.console import Console

from afterword.errors import CheckpointError
from afterword.storage.atomic import is_complete, publish, staging_folder
from afterword.storage.paths import cache_folder

_QUIET_SECONDS = 3
"""How long another process is waited for before it is said."""


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
        with _locked(target.with_name(f"{name}.lock"), name, console):
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


@functools.cache
def _whole(folder: Path, _made: int) -> bool:
    return is_complete(folder)


def _is_whole(folder: Path) -> bool:
    """Whether every file is as it was written. Told once a process: that reads the weights."""
    return folder.is_dir() and _whole(folder, folder.stat().st_mtime_ns)


@contextmanager
def _locked(path: Path, name: str, console: Console) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=_QUIET_SECONDS)
    except filelock.Timeout:
        console.print(f"{name}: waiting for another process that makes it", markup=False, highlight=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sha256(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_sha256(file: Path) -> str:
    """Of a file's content, read once for each size and time of change: a GGUF file may have many gigabytes."""
    seen = file.stat()
    place = f"{file.resolve()}|{seen.st_size}|{seen.st_mtime_ns}"
    note = models_folder() / "seen" / hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
    try:
        return note.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        found = sha256(file)
    with suppress(OSError):  # It is read again next time.
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(found, encoding="ascii")
    return found
