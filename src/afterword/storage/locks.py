"""Locks between processes: one at a time, and whoever waits says for whom."""

import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from afterword.errors import ConfigError

LOCK = ".lock"
"""In a folder that one process works in, and no other."""
SILENT_SECONDS = 5
"""A wait for another process that is longer is said."""


@contextlib.contextmanager
def sole(folder: Path, doing: str) -> Generator[None]:
    """One process at a time in a folder, which is made. Whoever waits says for whom.

    The lock is on the folder itself: it leaves no file, and ends with its process, however that ends. Where a file
    system has no locks, or the folder cannot be made, there is none. On Windows it is on a file beside the folder.
    """
    made = not os.path.isdir(folder)
    try:
        with _lock_of(folder, doing):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # Something is in it.
                folder.rmdir()


@contextlib.contextmanager
def _lock_of(folder: Path, doing: str) -> Generator[None]:
    if importlib.util.find_spec("fcntl") is None:
        with _beside(folder, doing):
            yield
        return
    descriptor = _locked(folder, doing)
    try:
        yield
    finally:
        if descriptor is not None:
            _unlock(descriptor)
            os.close(descriptor)


@contextlib.contextmanager
def _beside(folder: Path, doing: str) -> Generator[None]:
    whole = folder.resolve()
    lock = whole.with_name(f".{whole.name}{LOCK}")
    try:
        whole.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError:  # Whoever writes into it says so.
        yield
        return
    with held(lock, doing):
        yield


def _locked(folder: Path, doing: str) -> int | None:
    """A descriptor that holds the lock of a folder."""
    import fcntl

    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            _wait_for(descriptor, partial(fcntl.flock, descriptor), folder, doing)
            # Whoever had it may have removed the folder, or made it anew.
            if os.path.isdir(folder) and os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
            os.close(descriptor)
    except OSError:
        return None


def _unlock(descriptor: int) -> None:
    """Closing alone would not do: processes that were forked meanwhile, as those that load data, have it open too."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _wait_for(descriptor: int, lock: Callable[[int], None], folder: Path, doing: str) -> None:
    import fcntl

    until = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < until:
        try:
            return lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
    say_waiting(doing, folder)
    return lock(fcntl.LOCK_EX)


def say_waiting(doing: str, place: Path) -> None:
    """That another process is waited for, which may hang or have been stopped."""
    logging.getLogger("afterword").warning(
        "Waiting: another process %s (%s). Let it go on, or end it.",
        doing,
        os.fsencode(place).decode(errors="backslashreplace"),
    )


@contextlib.contextmanager
def held(lock: Path, doing: str | Callable[[], None]) -> Generator[None]:
    """One process at a time. Whoever waits says for whom: the other `doing` may hang, or may have been stopped.

    `doing` may also be what says it.
    """
    from filelock import FileLock, Timeout

    gate = FileLock(lock)
    try:
        gate.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        say_waiting(doing, lock) if isinstance(doing, str) else doing()
        gate.acquire()
    try:
        yield
    finally:
        gate.release()


@contextlib.contextmanager
def alone_in(folder: Path, doing: str) -> Generator[None]:
    """An output folder, which is made, for one process; another is refused at once: ConfigError.

    The lock is on a file in it, as file systems that machines share lock files and no folders. It ends with its
    process, however that ends. What was made for nothing is removed.
    """
    from filelock import FileLock, Timeout

    made, gate = not folder.is_dir(), FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        gate.acquire(timeout=0)
    except Timeout as error:
        problem = f"output_dir: another process {doing} in {str(folder)!r}"
        raise ConfigError(f"{problem}. Let it end, or give another folder.") from error
    except OSError as error:
        problem = f"output_dir: {str(folder)!r} cannot be written ({error.strerror})"
        raise ConfigError(f"{problem}. Give a folder that is empty or not there yet.") from error
    except NotImplementedError:
        pass  # A file system without locks.
    try:
        yield
    finally:
        gate.release()
        if made and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
            folder.rmdir()
