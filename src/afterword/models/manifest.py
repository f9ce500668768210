"""Folders that are either whole or not there: written beside, flushed, listed with hashes, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

MANIFEST = "manifest.json"
STAGING_SUFFIX = ".partial"


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
    _flush(target.parent)


def write_manifest(folder: Path) -> None:
    """Flush every file and list it with size and SHA-256."""
    entries = {}
    for file in _files(folder):
        _flush(file)
        entries[str(file.relative_to(folder))] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    path = folder / MANIFEST
    path.write_text(json.dumps({"files": entries}, indent=1), encoding="utf-8")
    _flush(path)
    _flush(folder)


def is_complete(folder: Path) -> bool:
    """Whether every file that the manifest lists is there with its hash."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(
            (folder / name).stat().st_size == entry["bytes"] and _sha256(folder / name) == entry["sha256"]
            for name, entry in entries.items()
        )
    except (OSError, ValueError, KeyError):
        return False


def replace_file(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new, never half of it."""
    partial = path.with_name(path.name + STAGING_SUFFIX)
    partial.write_text(text, encoding="utf-8")
    _flush(partial)
    os.replace(partial, path)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
