"""Checkpoints that count: only whole ones, found by their manifests."""

from __future__ import annotations

import re
from pathlib import Path

from afterword.errors import CheckpointError
from afterword.models import is_complete

_NAME = re.compile(r"checkpoint-(\d+)")


def last_complete_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run whose every file is there and undamaged, or None."""
    folders = [path for path in run.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    for folder in sorted(folders, key=checkpoint_step, reverse=True):
        if is_complete(folder):
            return folder
    return None


def require_complete(folder: Path) -> Path:
    """The folder, if it is a whole checkpoint; CheckpointError otherwise. Never a resume without optimizer state."""
    if not folder.is_dir():
        raise CheckpointError(
            f"resume_from_checkpoint: {str(folder)!r} is no folder. Give a checkpoint-N folder of a run."
        )
    if not is_complete(folder):
        raise CheckpointError(
            f"resume_from_checkpoint: {str(folder)!r} is not whole: its manifest is missing, or a file that it lists is "
            "missing or changed. Resume from an earlier checkpoint."
        )
    return folder


def checkpoint_step(folder: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    match = _NAME.fullmatch(folder.name)
    assert match, folder
    return int(match.group(1))
