"""Where a name leads: into the home folder, into the cache, to a file or folder, or to the hub.

The one rule: what is written like a path, or exists in part, is a path. It is never looked for on the hub.
"""

import contextlib
import errno
import functools
import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))(?:\w[\w.-]*/)?\w(?:[\w.-]*\w)?", re.ASCII)
_HUB_ID_LENGTH = 96
_FILES = (
    *(".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".py"),
    *(".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", ".rst"),
    *(
        ".html",
        ".htm",
        ".xml",
        ".pdf",
        ".docx",
        ".pptx",
        ".xlsx",
        ".epub",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".zip",
        ".tar",
    ),
)
"""Endings of files. No id on the hub is read to end so."""
_HUB_SECONDS = 5.0
"""How long the hub may take to answer before it counts as out of reach."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITE_FAILED = ("no space left", "file write failed", "unexpected pos", "file too large", "disk quota", "os error 28")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_HOME = re.compile(r"~[\w.-]*[/\\]")
SILENT_SECONDS = 5
"""A wait for another process that is longer is said."""


def cache_folder(part: str) -> Path | None:
    """`part` of $AFTERWORD_CACHE, else of ~/.cache/afterword; None where the variable says off."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "afterword"
    folder = os.environ.get("AFTERWORD_CACHE") or usual
    return None if folder == "off" else Path(folder).expanduser() / part


def at_home(value: Any) -> Any:
    """A value of settings in which every text that starts like `~/` or `~someone/` starts with that home folder.

    >>> at_home(["~", "~ 5 km", 3])
    ['~', '~ 5 km', 3]
    """
    if isinstance(value, str):
        return os.path.expanduser(value) if _HOME.match(value) else value
    if isinstance(value, Path):
        return value.expanduser()
    if isinstance(value, list | tuple):
        return type(value)(at_home(item) for item in value)
    return {name: at_home(item) for name, item in value.items()} if isinstance(value, dict) else value


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path here can be the id of something on the hub.

    >>> [is_hub_id(name) for name in ("org/name", "gpt2", "./name", "a/b/c", "a b", "org/model.gguf", "~/m", "a--b/c")]
    [True, True, False, False, False, False, False, False]
    """
    owner = name.rpartition("/")[0]
    partly_here = bool(owner) and os.path.isdir(owner)
    like_a_file = name.lower().endswith(_FILES)
    return bool(_HUB_ID.fullmatch(name)) and len(name) <= _HUB_ID_LENGTH and not like_a_file and not partly_here


def neighbour(name: str) -> str:
    """`Did you mean …? ` for a path that is nearly one that exists, or nothing."""
    folder, _, last = name.rstrip("/").rpartition("/")
    try:
        near = get_close_matches(last, os.listdir(folder or ("/" if name.startswith("/") else ".")), n=1, cutoff=0.7)
    except OSError:
        return ""
    return f"Did you mean {name.rstrip('/').removesuffix(last)}{near[0]}? " if last and near else ""


def hub_is_offline() -> bool:
    """Whether the person asked not to look on the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@functools.cache
def hub_answers() -> bool:
    """Whether the hub answers within five seconds, asked once a process. False where HF_HUB_OFFLINE is set.

    Its client tries for minutes where a network drops what is sent, and a name server may take as long.
    """
    if hub_is_offline():
        return False
    answered = threading.Event()

    def ask() -> None:
        """One short request to the hub."""
        from huggingface_hub import constants, get_session

        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
        except Exception:  # Whatever its client of the day raises: there was no answer.
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_SECONDS)
    return answered.is_set()


def unwritable(folder: Path) -> Path | None:
    """Where a folder that is to be written stands, if nothing can be written there: itself, or the nearest above it."""
    parent = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        # Tried, not asked: os.access says yes to root also where the file system says no.
        tempfile.TemporaryFile(dir=parent).close()
    except OSError:
        return parent
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether a file did not fit, whichever library met it."""
    text = str(error).lower()
    return getattr(error, "errno", None) in _FULL or any(words in text for words in _WRITE_FAILED)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, whichever library met it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def sole(folder: Path, doing: str) -> Iterator[None]:
    """One process at a time in a folder, which is made. Whoever waits says for whom.

    The lock is on the folder itself: it leaves no file, and ends with its process, however that ends. Where a file
    system has no locks, or the folder cannot be made, there is none.
    """
    made = not os.path.isdir(folder)
    descriptor = _locked(folder, doing)
    try:
        yield
    finally:
        if descriptor is not None:
            _unlock(descriptor)
            os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # Something is in it.
                folder.rmdir()


def _locked(folder: Path, doing: str) -> int | None:
    """A descriptor that holds the lock of a folder."""
    try:
        import fcntl

        while True:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            _wait_for(descriptor, partial(fcntl.flock, descriptor), folder, doing)
            # Whoever had it may have removed the folder, or made it anew.
            if os.path.isdir(folder) and os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
            os.close(descriptor)
    except (OSError, ImportError):
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
def held(lock: Path, doing: str) -> Iterator[None]:
    """One process at a time. Whoever waits says for whom: the other `doing` may hang, or may have been stopped."""
    from filelock import FileLock, Timeout

    gate = FileLock(lock)
    try:
        gate.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        say_waiting(doing, lock)
        gate.acquire()
    try:
        yield
    finally:
        gate.release()
