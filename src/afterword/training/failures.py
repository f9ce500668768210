"""What can end a run from outside, in one clear sentence each. What was saved stays as it is."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from afterword.errors import TrainingError
from afterword.training.checkpoints import last_complete_checkpoint

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITE_FAILED = ("no space left", "file write failed", "unexpected pos", "file too large", "disk quota")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_NEARLY_FULL_BYTES = 2**20


class Interrupted(TrainingError):  # noqa: N818  the name says what happened, as KeyboardInterrupt does
    """Stopped by the person at the keyboard."""

    exit_code = 130


@contextlib.contextmanager
def explained(run: Path) -> Iterator[None]:
    """Turn interrupt, full disk and lack of memory into a TrainingError that says what is left and what to do."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(f"Interrupted. {_kept(run)}") from error
    except MemoryError as error:
        raise TrainingError(_no_memory(run)) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, TrainingError):
            raise
        text = str(error).lower()
        if any(words in text for words in _OUT_OF_MEMORY):
            raise TrainingError(_no_memory(run)) from error
        if _is_full(error, text, run):
            raise TrainingError(
                f"output_dir: the disk of {str(run)!r} is full or does not take the file. {_kept(run)} Free some space, or "
                "lower save_total_limit."
            ) from error
        raise


def _is_full(error: BaseException, text: str, run: Path) -> bool:
    if getattr(error, "errno", None) in _FULL or any(words in text for words in _WRITE_FAILED):
        return True
    writing = isinstance(error, SafetensorError) or "pytorchstreamwriter" in text
    return writing and shutil.disk_usage(run).free < _NEARLY_FULL_BYTES


def _no_memory(run: Path) -> str:
    return (
        f"Out of memory. {_kept(run)} Lower micro_batch_tokens (it changes no gradient) or max_length, switch on "
        "gradient_checkpointing, or train adapters with use_peft."
    )


def _kept(run: Path) -> str:
    checkpoint = last_complete_checkpoint(run)
    if checkpoint is None:
        return "No checkpoint had been written yet; the same command starts again."
    return f"{checkpoint.name} is intact; the same command resumes from it."
