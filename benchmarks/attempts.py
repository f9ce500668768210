"""One contender of several: what it found, or why it found nothing, so that the others' numbers are not lost."""

import gc
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Missed:
    """Why there is nothing: a package that is not installed, too little memory, or an error."""

    why: str
    failed: bool = False
    """By an error. What is not installed here, or does not fit, has not failed."""


def attempted(work: Callable[[], T]) -> T | Missed:
    """What `work` gives. An assertion of ours stops everything; any other error is printed and named."""
    import torch

    try:
        return work()
    except AssertionError:
        raise
    except ImportError as error:
        return Missed(f"not there: {_first_line(error)}")
    except torch.OutOfMemoryError:
        return Missed("not enough memory")
    except Exception as error:  # other people's compilers and kernels raise what they like
        traceback.print_exc()
        return Missed(f"failed: {type(error).__name__}: {_first_line(error)}", failed=True)
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def append_row(file: Path | None, row: dict[str, Any]) -> None:
    """A line of JSON behind those that are there: what was measured is kept, whatever comes next."""
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
