"""A lock on one byte of an open file, which may lie behind its end: by fcntl, and on Windows by msvcrt.

Such locks leave no file, and end with their process, however that ends.
"""

import os
import time

_PAUSE_SECONDS = 0.05


def take(descriptor: int, place: int, *, wait: bool) -> bool:
    """Whether this process has the lock now; with `wait`, once it has. OSError where a file system has no locks."""
    try:
        import fcntl
    except ImportError:
        while not (taken := _take_on_windows(descriptor, place)) and wait:
            time.sleep(_PAUSE_SECONDS)
        return taken
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.lockf(descriptor, how, 1, place)
    except BlockingIOError:
        return False
    return True


def give_free(descriptor: int, place: int) -> None:
    """Let others have it. OSError where there was none."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, place, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # pyright: ignore  (unknown where it is not Windows)
        return
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)


def _take_on_windows(descriptor: int, place: int) -> bool:
    import msvcrt

    os.lseek(descriptor, place, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore  (unknown where it is not Windows)
    except PermissionError:
        return False
    return True
