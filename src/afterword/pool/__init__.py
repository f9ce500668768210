"""Tasks that do not wait for each other: one by one here, in a pool of processes, or on the machines of a Ray cluster.

    with open_pool(Workers(processes=4)) as pool:
        for number, result in pool.results(function, tasks):
            …

The one rule: a result is given once, however often its task was begun. So whoever takes the results writes each once.
A function and its tasks are sent to other processes: the function is one of a module, the tasks are plain data.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from afterword.distributed import process_count
from afterword.errors import ConfigError
from afterword.pool.workers import Pool, Workers

T = TypeVar("T")
R = TypeVar("R")


class _Here:
    """This process, one task after the other."""

    size = 1
    keeps = True

    def results(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """As `Pool.results`, in the order of the tasks."""
        return ((number, function(task)) for number, task in enumerate(tasks))


@contextmanager
def open_pool(workers: Workers) -> Generator[Pool]:
    """A pool until the block ends. ConfigError where Ray is not installed, or no cluster answers."""
    if process_count() > 1:
        raise ConfigError("processes: tasks are given out by one process. Start the command without torchrun.")
    if workers.is_here:
        yield _Here()
    elif workers.ray is not None:
        from afterword.pool.ray_cluster import connected

        with connected(workers) as cluster:
            yield cluster
    else:
        from afterword.pool.processes import opened

        with opened(workers) as pool:
            yield pool
