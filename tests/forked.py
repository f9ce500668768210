"""Processes forked from one that has done the slow imports: each costs what it does, and not six seconds before that.

What a process of its own is for stays true of them: they are killed, have limits, are several that compute together.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from commands import SECONDS, Ended, killed_at_last, line_of

WARM = """
import gc, importlib, json, os, pkgutil, resource, runpy, signal, sys, traceback
import torch
drawn = torch.get_rng_state()
import afterword.cli
for module in pkgutil.walk_packages(afterword.__path__, "afterword."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import accelerate, matplotlib.figure, scipy.stats, sentencex
# No run looks through all that was imported when it frees memory.
gc.freeze()
# A shell that starts this in the background has it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def run(job, environment):
    os.environ.update(environment)
    os.chdir(job["folder"])
    sys.argv = job["words"]
    for stream in (1, 2):
        os.dup2(os.open(job["said"], os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    if job["file_kib"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_kib"] * 1024,) * 2)
    try:
        if sys.argv[0] == "afterword":
            afterword.cli.main()
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
        return 99
    return 0

print("ready" if torch.equal(torch.get_rng_state(), drawn) else "ready, other random numbers", flush=True)
for line in sys.stdin:
    job, pids = json.loads(line), []
    for environment in job["environments"]:
        pid = os.fork()
        if pid == 0:
            code = run(job, environment)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        pids.append(pid)
    print(*pids, flush=True)
    codes, left = {}, set(pids)
    while left:
        pid, status = os.wait()
        left.discard(pid)
        codes[pid] = os.waitstatus_to_exitcode(status)
        # Who computes together waits for the others for ever.
        for other in left if codes[pid] else ():
            os.kill(other, signal.SIGKILL)
    print(*(codes[pid] for pid in pids), flush=True)
"""


@dataclass
class Started:
    """A process of ours, or several that compute together: where they run, and how to wait for them."""

    pids: list[int]
    folder: Path
    said_in: Path
    replies: subprocess.Popen[str]

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code of the first that did not end well, else 0; negative for the signal that ended it."""
        return next((code for code in map(int, line_of(self.replies, seconds).split()) if code), 0)

    def end(self, number: int) -> int:
        """Send a signal, and wait."""
        for pid in self.pids:
            os.kill(pid, number)
        return self.wait()

    @property
    def said(self) -> str:
        """What all processes that write to the same file have printed since it was last asked."""
        text = self.said_in.read_text(encoding="utf-8")
        self.said_in.write_text("", encoding="utf-8")
        return text


@dataclass(frozen=True)
class Forking:
    """The process with the imports done."""

    process: subprocess.Popen[str]
    imported: str
    """What it printed before the first job: "ready", where importing has printed and drawn nothing."""

    def start(
        self,
        folder: Path,
        *words: str | Path,
        processes: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
        file_kib: int = 0,
    ) -> Started:
        """`afterword …`, or a program with its arguments, in the folder; on several processes as torchrun starts them.

        No file of theirs may be larger than `file_kib`, where it is given.
        """
        each = [dict(environment)]
        if processes > 1:
            port = _free_port()
            each = [{**environment, **_place(number, processes, port)} for number in range(processes)]
        said = folder / "said.txt"
        job = {"folder": str(folder), "words": [str(word) for word in words], "said": str(said)}
        assert self.process.stdin
        self.process.stdin.write(json.dumps({**job, "environments": each, "file_kib": file_kib}) + "\n")
        self.process.stdin.flush()
        return Started([int(pid) for pid in line_of(self.process).split()], folder, said, self.process)

    def run(
        self,
        folder: Path,
        *words: str | Path,
        processes: int = 1,
        environment: Mapping[str, str] = MappingProxyType({}),
        seconds: float = SECONDS,
    ) -> Ended:
        """To its end. The test fails if that takes longer, or if it does not end well."""
        started = self.start(folder, *words, processes=processes, environment=environment)
        code = started.wait(seconds)
        said = started.said
        assert code == 0, said
        return Ended(code, said, "")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _place(number: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun says to a process."""
    of_all = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    of_all |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    return of_all | dict.fromkeys(("RANK", "LOCAL_RANK"), str(number))


@contextmanager
def open_forking() -> Iterator[Forking]:
    """One that is there for the block, and nothing of what it started after it."""
    tests = str(Path(__file__).parent)
    environment = {"COLUMNS": "200", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", WARM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    with killed_at_last(process):
        said = [line_of(process)]
        while said[-1] and not said[-1].startswith("ready"):
            said.append(line_of(process))
        assert said[-1], "the imports failed"
        yield Forking(process, "".join(said))
