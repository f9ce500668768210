"""Several processes: the one file that names accelerate's process state. One process is the plain case."""

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def process_count() -> int:
    """Processes that torchrun or accelerate launched; 1 without them. Read before anything is set up."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def gathered(values: list[float]) -> list[float]:
    """The values of all processes, in their order."""
    if process_count() == 1:
        return values
    from accelerate.utils import gather_object

    return gather_object(values)


def main_process_first(work: Callable[[], T]) -> T:
    """Do `work` on the main process, then on the others, which then find its files."""
    if process_count() == 1:
        return work()
    import torch
    from accelerate import PartialState

    # The Trainer joins the same process group later; on a machine without GPUs it must be gloo from the start.
    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        return work()
