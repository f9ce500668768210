"""A pool of processes on this machine, each with a share of its threads and one of its GPUs.

The one rule: no process of the pool outlives the one that gives out tasks, however that ends.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

from afterword.distributed import visible_gpus
from afterword.errors import TrainingError
from afterword.pool.workers import Workers

T = TypeVar("T")
R = TypeVar("R")
_THREADS = "OMP_NUM_THREADS"
START = "spawn"
"""How a process begins. A forked one could neither use a GPU nor threads that were begun before."""


class ProcessPool:
    """Processes that are begun anew together where one of them dies."""

    keeps = True

    def __init__(self, workers: Workers):
        self.size: int = workers.processes or 1
        self._retries = workers.retries
        self._executor: ProcessPoolExecutor | None = None
        self._others = set(multiprocessing.active_children())

    def results(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """As `Pool.results`."""
        left = dict(enumerate(tasks))
        for attempt in range(self._retries + 1):
            try:
                for number, result in self._ended(function, dict(left)):
                    del left[number]
                    yield number, result
            except BrokenProcessPool:
                self._executor = None
                said = "A process of the pool died; tasks that were running: begun anew (%d of %d)."
                if attempt < self._retries:
                    logging.getLogger("afterword").warning(said, attempt + 1, self._retries)
            if not left:
                return
        problem = f"processes: a process of the pool died {self._retries + 1} times, as where memory is short"
        raise TrainingError(f"{problem}. Lower processes, and give the same command again.")

    def stop(self) -> None:
        """Ask the processes to stop in what they do: what trains saves where it stands."""
        for child in set(multiprocessing.active_children()) - self._others:
            child.terminate()

    def end(self) -> None:
        """End the processes once they have nothing to do."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def _ended(self, function: Callable[[T], R], tasks: Mapping[int, T]) -> Iterator[tuple[int, R]]:
        self._executor = self._executor or _executor(self.size)
        futures = {self._executor.submit(function, task): number for number, task in tasks.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def opened(workers: Workers) -> Generator[ProcessPool]:
    """A pool that is begun with its first task, and ends with the block."""
    pool = ProcessPool(workers)
    try:
        yield pool
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.end()


def _executor(size: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context(START)
    places: Any = context.Queue()
    gpus = visible_gpus()
    for number in range(size):
        places.put(gpus[number % len(gpus)] if gpus else None)
    threads = max(1, (os.cpu_count() or 1) // size)
    return ProcessPoolExecutor(size, mp_context=context, initializer=_begin, initargs=(places, threads))


def _begin(places: Any, threads: int) -> None:
    """Before the first task of a process: what it may use, and what ends it."""
    os.environ.setdefault(_THREADS, str(threads))
    if (gpu := places.get()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # Ctrl-C reaches all processes of a terminal; what it ends is said by the one that gives out the tasks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of a pool has one"
    connection.wait([parent.sentinel])
    os._exit(1)
