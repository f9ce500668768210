"""Hashes: by which content is known again, whatever its place and name. All are SHA-256, as 64 hex digits."""

import hashlib
import json
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_sha256(value: object) -> str:
    """Of a value as JSON with sorted names, where what JSON does not have, as a path, is its text."""
    return text_sha256(json.dumps(value, sort_keys=True, default=str))


def path_sha256(path: Path) -> str:
    """Of a file's bytes, or of all files of a folder with their names inside it."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return json_sha256({file.relative_to(path).as_posix(): file_sha256(file) for file in files})
