"""One run that is killed again and again, given to its end, and compared with one that was never killed.

What writes (`kills_writing.py`) and what writes anew (`kills_rewriting.py`) say when they are killed, and what a kill
proves; everything else is here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from kills import make_documents
from kills_commands import be_the_command, prepare_process

_WAIT_SECONDS = 300.0
_DOCUMENTS = 12


@dataclass
class Killing(ABC):
    """The run that is killed: what it reads and how, and how long it writes when it is not."""

    folder: Path
    words: tuple[str, ...]
    seconds: float = 0.0
    """That the run without a kill wrote."""
    problems: list[str] = field(default_factory=list[str])
    most_in_a_run: ClassVar[int]
    """Kills of one run, before it is given to its end."""

    @abstractmethod
    def store(self, name: str) -> Path:
        """Where the run of that name keeps what was written."""

    @abstractmethod
    def attend(self, child: int) -> None:
        """Measure what the kills need of the run without one, until its process has ended well."""

    @abstractmethod
    def kill(self, name: str, child: int, chance: random.Random) -> str | None:
        """Kill the process at a random moment: where that was, nothing where it proves nothing.

        None where the run had come to its end, or to that of what it writes.
        """

    def start(self, name: str) -> int:
        """The run of that name; the process that does it."""
        run = self.folder / name
        run.with_suffix(".log").unlink(missing_ok=True)
        if not (child := os.fork()):
            words = [*self.words, "-o", str(run), "--written-folder", str(self.store(name))]
            be_the_command(words, run.with_suffix(".log"))
        return child

    def said(self, name: str) -> str:
        """What the process of a run has printed."""
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def result_of(self, name: str) -> Mapping[str, Any]:
        """What must be the same of two runs."""
        run = self.folder / name
        state, data = (json.loads((run / f"{part}.json").read_text(encoding="utf-8")) for part in ("state", "data"))
        used = [json.loads(line) for line in (run / "written.jsonl").read_text(encoding="utf-8").splitlines()]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return {
            "texts": {row["key"]: (row["text"], row["ended"]) for row in used},
            "prepared data": (state["windows_sha256"], data["prepared_by_view"]),
            "losses": [(row["step"], row["train/loss_nats"]) for row in rows],
            "weights": (run / "model.safetensors").read_bytes(),
        }


def run_killed(kind: type[Killing], options: str, kills: int, seed: int, model: str, *, doing: str, same: str) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the verdict."""
    prepare_process()
    chance, done, runs, began = random.Random(seed), 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="afterword-kills-") as scratch:
        folder = Path(scratch)
        lines = make_documents(folder / "all.jsonl", seed).read_text(encoding="utf-8").splitlines()
        documents = folder / "documents.jsonl"
        documents.write_text("".join(f"{line}\n" for line in lines[:_DOCUMENTS]), encoding="utf-8")
        case = kind(folder, ("adapt", model, str(documents), *options.split()))
        case.attend(case.start("reference"))
        while done < kills:
            runs += 1
            done = _one(case, f"run-{runs}", done, kills, chance)
    print(f"{done} kills while {model} {doing}, {runs} runs given to their end, {time.monotonic() - began:.0f} s")
    print("\n".join(case.problems) or f"{same} are those of a run without a kill")
    return len(case.problems)


def _one(case: Killing, name: str, done: int, kills: int, chance: random.Random) -> int:
    """Kill a run some times and give it again to its end; how many kills there are now."""
    most = min(kills, done + case.most_in_a_run)
    while done < most and (where := case.kill(name, case.start(name), chance)) is not None:
        if where:
            done += 1
            print(f"{done:>4}  {name:<8}{where}", flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(case.start(name), 0)[1])
    if code:
        case.problems.append(f"{name} ended with {code}: {case.said(name)[-800:]}")
    else:
        ours, theirs = (case.result_of(each) for each in (name, "reference"))
        case.problems += [f"{name}: other {what}" for what in theirs if ours[what] != theirs[what]]
    for path in case.folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done


def until_ended(case: Killing, child: int, look: Callable[[], None], every_seconds: float) -> None:
    """Look again and again while the run without a kill goes on. The program ends where that fails."""
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        look()
        time.sleep(every_seconds)
    if ended[1]:
        raise SystemExit(f"the run without a kill failed:\n{case.said('reference')[-3000:]}")


def until(happened: Callable[[], bool], child: int = 0) -> bool:
    """Wait for a moment. False where the process `child`, if one is given, ended before it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not happened():
        if child and os.waitpid(child, os.WNOHANG)[0]:
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing happened for {_WAIT_SECONDS:.0f} s")
        time.sleep(0.002)
    return True
