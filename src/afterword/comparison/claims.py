"""Cells shared among processes: started twice with the same folder, a comparison is twice as fast.

The one rule: a claim is a lock of the operating system, which ends with its process, however that ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from afterword.storage.locks import SILENT_SECONDS, say_waiting


@contextmanager
def claimed(run: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process may work on a run folder; with `wait`, it may as soon as no other does."""
    lock = lock_of(run)
    try:
        lock.acquire(timeout=SILENT_SECONDS if wait else 0)
    except Timeout:
        if not wait:
            yield False
            return
        say_waiting("runs this cell", run)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def lock_of(path: Path) -> FileLock:
    """The lock beside a file or folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))
