"""Folders that are either whole or not there: written beside, flushed, listed with hashes, then renamed."""

import contextlib
import glob
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from afterword.storage.hashes import file_sha256
from afterword.storage.parsing import parse_json

MANIFEST = "manifest.json"
STAGING_SUFFIX = ".partial"
WINDOWS = os.name == "nt"
_STALE_SECONDS = 600.0
"""No small file takes as long to write."""


def staging_folder(target: Path) -> Path:
    """An empty sibling of `target` to write into; whatever a dead run left there is removed."""
    folder = target.with_name(target.name + STAGING_SUFFIX)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(staging: Path, target: Path) -> None:
    """Flush `staging`, write its manifest last, and rename it to `target`. A crash leaves no half `target`."""
    write_manifest(staging)
    if target.exists():
        # Only ever an incomplete folder of the same step, or the same step saved again: out of the way first.
        grave = staging_folder(target.with_name(target.name + ".old"))
        os.replace(target, grave / target.name)
        shutil.rmtree(grave, ignore_errors=True)
    os.replace(staging, target)
    flush(target.parent)


def write_manifest(folder: Path) -> None:
    """List every file with its SHA-256, and flush them and the list."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    hashes = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps({"sha256": hashes}, indent=1), encoding="utf-8")
    for path in (*files, folder / MANIFEST, folder):
        flush(path)


def is_complete(folder: Path) -> bool:
    """Whether every file that the manifest lists is there with its hash."""
    try:
        hashes = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return bool(hashes) and all(file_sha256(folder / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def replace_file(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new, never half of it."""
    _remove_stale(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{STAGING_SUFFIX}")
    try:
        partial.write_text(text, encoding="utf-8")
        flush(partial)
        os.replace(partial, path)
    except OSError as error:
        # Of a write, the system does not say where it was.
        error.filename = error.filename or str(path)
        raise
    finally:
        # Replaced, it is no longer there.
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def one_move(folder: Path, name: Callable[[], str]) -> Generator[Path]:
    """A path to write; once that is done, the file has its name in `folder`, at once.

    What stops on the way leaves nothing of it. The name may follow from what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as hidden:
        unfinished = Path(hidden) / "file"
        yield unfinished
        os.replace(unfinished, folder / name())


def _remove_stale(path: Path) -> None:
    """Remove what a process that was killed had begun to write to the same place."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{STAGING_SUFFIX}"):
        with contextlib.suppress(OSError):  # Another process may be faster.
            if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                partial.unlink()


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything else is done.

    Windows opens no folders, and flushes files that may be written alone.
    """
    if WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
