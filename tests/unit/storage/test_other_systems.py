"""Windows, simulated: no fcntl, folders that cannot be opened, files that are flushed only if they may be written."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import json
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import filelock  # Before fcntl is gone: on Windows it has locks of its own.
import pytest

from afterword.storage import atomic, byte_locks, locks
from afterword.storage.text_store import TextStore


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of Windows can be had here: msvcrt's locks by fcntl's, and what its `os` refuses."""
    real_open, real_fsync, find_spec = os.open, os.fsync, importlib.util.find_spec

    def locking(descriptor: int, how: int, count: int) -> None:
        kinds = {1: fcntl.LOCK_EX | fcntl.LOCK_NB, 0: fcntl.LOCK_UN}
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            fcntl.lockf(descriptor, kinds[how], count, place)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *rest, **named)

    def flushed(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    assert filelock.FileLock is not filelock.SoftFileLock
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=1, LK_UNLCK=0))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "fcntl" else find_spec(name, *a))
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(atomic, "WINDOWS", True)


def test_a_folder_is_published_whole(windows: None, tmp_path: Path):
    staging = atomic.staging_folder(tmp_path / "result")
    (staging / "sub").mkdir()
    (staging / "sub" / "weights").write_text("w")
    atomic.publish(staging, tmp_path / "result")
    assert atomic.is_complete(tmp_path / "result")
    assert list(json.loads((tmp_path / "result/manifest.json").read_text())["sha256"]) == ["sub/weights"]
    atomic.replace_file(tmp_path / "small.json", "{}")
    assert (tmp_path / "small.json").read_text() == "{}"


def test_two_do_not_work_in_one_folder(windows: None, tmp_path: Path):
    inside, said = threading.Event(), list[str]()

    def second() -> None:
        with locks.sole(tmp_path / "run", "works here"):
            said.append("second")
            inside.set()

    with locks.sole(tmp_path / "run", "works here"):
        other = threading.Thread(target=second)
        other.start()
        assert not inside.wait(0.3)
        said.append("first")
    other.join(10)
    assert said == ["first", "second"]
    assert not (tmp_path / "run").exists()


def test_rows_of_a_store_are_found_again(windows: None, tmp_path: Path):
    with TextStore(tmp_path / "written.jsonl") as store:
        store.add([{"key": "a", "text": "A.\nB."}])
        with store.claimed(["a", "b"]) as mine:
            assert mine == ["b"]
    with TextStore(tmp_path / "written.jsonl") as store:
        assert store["a"]["text"] == "A.\nB."


def test_a_byte_that_another_process_has_is_not_had(tmp_path: Path):
    """What msvcrt says of a lock that is taken; another process is one that was forked, to which locks do not go."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert byte_locks.take(descriptor, 2**41, wait=False)
    asked, answer = os.pipe()
    if not (child := os.fork()):
        # Whatever goes wrong, this process is not to run the tests that follow.
        try:
            windows.__wrapped__(pytest.MonkeyPatch())  # type: ignore[attr-defined]
            os.write(answer, b"1" if byte_locks.take(descriptor, 2**41, wait=False) else b"0")
        finally:
            os._exit(0)
    os.close(answer)
    os.waitpid(child, 0)
    assert os.read(asked, 1) == b"0"
    byte_locks.give_free(descriptor, 2**41)
    for each in (descriptor, asked):
        os.close(each)
