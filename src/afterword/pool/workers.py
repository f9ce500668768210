"""What a pool is, and what a person says of where its tasks are run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where tasks are run."""

    processes: int | None = None
    """At once. None: one here, and on a cluster as many as it has GPUs for, or else CPUs."""
    ray: str | None = None
    """Address of a Ray cluster, `auto` for the one of this machine. None: this machine alone."""
    gpus_each: float | None = None
    """Of a task on a cluster. None: one where the cluster has any."""
    retries: int = 2
    """Times that a task is begun anew whose process or machine died."""

    @property
    def is_here(self) -> bool:
        """Whether tasks are run in this process, one after the other."""
        return self.ray is None and (self.processes or 1) == 1


class Pool(Protocol):
    """What runs tasks."""

    @property
    def size(self) -> int:
        """Tasks that are run at once, at most."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether a process is there for many tasks, and keeps what it loaded for the first."""
        ...

    def results(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """The number and the result of every task as soon as it is there, in any order.

        What a task raises is raised here, and ends those that run. TrainingError where a task's process died once more
        than it is begun anew.
        """
        ...
