"""Checkpoints that count, which are only whole ones, and what is said of them when a run is ended from outside."""

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from afterword.errors import CheckpointError, TrainingError, is_disk_full, is_out_of_memory
from afterword.models import is_complete

_NAME = re.compile(r"checkpoint-\d+")
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE, errno.EIO}
"""Of a folder that was removed, or may not be written any more, while a run was in it."""
_OF_THE_SYSTEM = re.compile(r"\(os error \d+\)")


class Interrupted(TrainingError):  # noqa: N818  the name says what happened, as KeyboardInterrupt does
    """Stopped by the person at the keyboard."""

    exit_code = 130


class Terminated(Interrupted):
    """Ended from outside by SIGTERM, as schedulers and containers do, with a checkpoint of the running step."""

    exit_code = 143


def checkpoint_step(folder: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    return int(folder.name.removeprefix("checkpoint-"))


def last_complete_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run whose every file is there and undamaged, or None."""
    folders = [path for path in run.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return next(filter(is_complete, sorted(folders, key=checkpoint_step, reverse=True)), None)


def remove_checkpoints(run: Path) -> None:
    """Remove every checkpoint of a run, whole or not: its result is there."""
    for path in run.glob("checkpoint-*"):
        if path.is_dir() and _NAME.match(path.name):
            shutil.rmtree(path, ignore_errors=True)


def require_complete(folder: Path) -> Path:
    """The folder, if it is a whole checkpoint; CheckpointError otherwise. Never a resume without optimizer state."""
    if is_complete(folder):
        return folder
    problem = (
        "is not whole: a file of it, or its manifest, is missing or changed" if folder.is_dir() else "is no folder"
    )
    raise CheckpointError(
        f"resume_from_checkpoint: {str(folder)!r} {problem}. Give a whole checkpoint-N folder of a run."
    )


@contextlib.contextmanager
def explained(run: Path) -> Iterator[None]:
    """Turn interrupt, full disk and lack of memory into a TrainingError that says what is left and what to do."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, OSError, RuntimeError, SafetensorError) as error:
        explanation = None if isinstance(error, TrainingError) else _explanation(error, run)
        if explanation is None:
            raise
        raise explanation from error
    except Exception as error:
        # Tokenizers raise nothing narrower; a file that the system did not take is told as any other.
        if not _OF_THE_SYSTEM.search(str(error)) or (explanation := _explanation(error, run)) is None:
            raise
        raise explanation from error


def _explanation(error: BaseException, run: Path) -> TrainingError | None:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"Interrupted. {_kept(run)}")
    if is_out_of_memory(error):
        remedy = "Lower micro_batch_tokens (changes no gradient) or max_length; use gradient_checkpointing or use_peft."
        return TrainingError(f"Out of memory. {_kept(run)} {remedy}")
    if not run.is_dir() and isinstance(error, OSError | RuntimeError | SafetensorError):
        return TrainingError(f"output_dir: {str(run)!r} was removed while the run wrote there. Start it again.")
    if getattr(error, "errno", None) in _GONE and str(getattr(error, "filename", "")).startswith(str(run)):
        problem = f"output_dir: {error.filename!r} cannot be written ({error.strerror})"  # pyright: ignore
        return TrainingError(f"{problem}. {_kept(run)} Give access to it.")
    if is_disk_full(error):
        problem = f"output_dir: the disk of {str(run)!r} is full or does not take the file."
        return TrainingError(f"{problem} {_kept(run)} Free some space, or lower save_total_limit.")
    return None


def _kept(run: Path) -> str:
    if checkpoint := last_complete_checkpoint(run):
        return f"{checkpoint.name} is intact; the same command resumes from it."
    return "No checkpoint had been written yet; the same command starts again."
