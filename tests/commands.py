"""Processes that tests start: each has a time limit, and ends with all that it started.

What they print goes to files: a process that is left over cannot hold a pipe open that somebody reads to its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil
import pytest

SECONDS = 240
"""Less than a test has, so that what a process did is shown and not only where the test waited."""
SHOWN = 5000
"""Characters of what a process printed."""
ON_TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
"""Words of Python before a program that two processes run, on a port that is free."""


class Ended(NamedTuple):
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Both, as a person sees it."""
        return self.out + self.err


def run_python(*words: str | Path, **how: Any) -> Ended:
    """Python with these words, as `run_command` runs it."""
    return run_command([sys.executable, *words], **how)


def run_command(
    words: Sequence[str | Path],
    *,
    seconds: float = SECONDS,
    environment: Mapping[str, str | None] = MappingProxyType({}),
    cwd: Path | None = None,
    check: bool = True,
) -> Ended:
    """Run to its end. The test fails if that takes longer or, with `check`, if the exit code is not 0.

    Of one that takes longer the stacks of its Python threads are shown. `environment` is laid over this process's;
    what it gives as None is left out.
    """
    whole = {**os.environ, **environment, "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env={name: value for name, value in whole.items() if value is not None},
            start_new_session=True,
        )
        late = False
        with killed_at_last(process):
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                late = True
                _write_stacks(process)
        for file in (out, err):
            file.seek(0)
        done = Ended(process.returncode, *(file.read().decode("utf-8", "replace") for file in (out, err)))
    told = f"{done.out[-SHOWN:]}\n{done.err[-SHOWN:]}"
    if late:
        pytest.fail(f"not at its end after {seconds:.0f} s: {process.args}\n{told}")
    assert not check or done.code == 0, told
    return done


@contextmanager
def killed_at_last(process: subprocess.Popen[Any]) -> Iterator[None]:
    """However the block is left, nothing is left of the process and of what it started."""
    try:
        yield
    finally:
        kill(process)
        process.wait(timeout=30)


def kill(process: subprocess.Popen[Any]) -> None:
    """The process, all below it (torchrun's are in sessions of their own), and what is left of its group."""
    for member in _family(process):
        _send(member, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def line_of(process: subprocess.Popen[str], seconds: float = 120) -> str:
    """The next line that a process prints. After so many seconds without one it is killed, and the test fails."""
    assert process.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if late.is_set():
        pytest.fail(f"nothing was printed in {seconds:.0f} s: {process.args}")
    return line


def _write_stacks(process: subprocess.Popen[Any]) -> None:
    """Python with a fault handler writes its stacks when it is told to abort."""
    family = _family(process)
    for member in reversed(family):
        _send(member, signal.SIGABRT)
    psutil.wait_procs(family, timeout=5)


def _family(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _send(member: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        member.send_signal(number)
