"""Tasks on the machines of a Ray cluster. Ray places them, counts their GPUs, and begins those anew whose machine died.

The one rule: a task is run in the folder of the command, on a file system that all machines share. So every path means
the same there as here.
"""

import logging
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from afterword.errors import ConfigError, TrainingError
from afterword.pool.workers import Workers

T = TypeVar("T")
R = TypeVar("R")


class RayPool:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, workers: Workers):
        self._ray = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        self._gpus = (1.0 if most else 0.0) if workers.gpus_each is None else workers.gpus_each
        if self._gpus > most:
            problem = f"gpus_each: {self._gpus:g}, and no machine of the cluster has more than {most:g}"
            raise ConfigError(f"{problem}. Lower it, or add machines.")
        of_each = [node.get("GPU", 0.0) // self._gpus if self._gpus else node.get("CPU", 0.0) for node in nodes]
        self.size: int = workers.processes or max(1, int(sum(of_each)))
        # Ray ends a process with its task where that had a GPU, so that its memory is free for the next.
        self.keeps: bool = not self._gpus
        how = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": workers.retries}
        self._run = ray.remote(_run).options(scheduling_strategy="SPREAD", **how)

    def results(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """As `Pool.results`."""
        waiting, running, folder = deque(enumerate(tasks)), dict[Any, int](), os.getcwd()
        try:
            while waiting or running:
                while waiting and len(running) < self.size:
                    number, task = waiting.popleft()
                    running[self._run.remote(function, task, folder)] = number
                (ended,), _ = self._ray.wait(list(running), num_returns=1)
                yield running.pop(ended), self._result(ended)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayError as error:
            cause = getattr(error, "cause", error)
            if not isinstance(cause, errors.RayError):
                # What the task raised, not where Ray met it.
                raise cause from error
            lines = [line for line in str(cause).splitlines() if line.strip()]
            rule = "Its processes need memory, and every machine the same version of afterword"
            raise TrainingError(f"ray: a task could not be run to its end. {rule}. Ray says: {lines[0]}") from error


@contextmanager
def connected(workers: Workers) -> Generator[RayPool]:
    """The cluster at an address, until the block ends. Where this process is connected already, it stays so."""
    # Nothing of ours is told to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "ray: is not installed. Install it on every machine: pip install 'afterword[ray]'."
        ) from error
    before = ray.is_initialized()
    if not before:
        try:
            ray.init(address=workers.ray, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            problem = f"ray: no cluster can be used at {workers.ray!r} ({first.rstrip('.')})"
            raise ConfigError(f"{problem}. Start one with `ray start --head`, and give its address.") from error
    try:
        yield RayPool(ray, workers)
    finally:
        if not before:
            ray.shutdown()


def _run(function: Callable[[T], R], task: T, folder: str) -> R:
    """On a machine of the cluster."""
    try:
        os.chdir(folder)
    except OSError as error:
        problem = f"ray: the machine {platform.node()} cannot use the folder {folder!r} ({error.strerror})"
        raise ConfigError(f"{problem}. Start in a folder that all machines share.") from error
    return function(task)
