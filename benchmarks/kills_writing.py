"""Kill a run again and again while its model writes, go on with it, and compare it with one that was never killed.

    python benchmarks/kills.py --writing 20

Every kill is a SIGKILL at a random moment after it said that it writes, and counts only if texts were missing then. A
run is killed several times, then given again to its end. Every text it used, its prepared data, the losses of its steps
and its weights must then be the same, to the bit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills import make_documents
from kills_commands import be_the_command, prepare_process

_MOST_IN_A_RUN = 8
"""Kills of one run, before it is given to its end."""
_WAIT_SECONDS = 300.0
_WORDS = "--method continuation --continuations 40 --new-tokens 16 --documents-per-step 4 --max-steps 3 --save-steps 1"


@dataclass
class Writing:
    """The run that is killed: what it reads and how, and what it comes to when it is not."""

    folder: Path
    words: tuple[str, ...]
    texts: int = 0
    """Of the run that was never killed."""
    seconds: float = 0.0
    """From when it says that it writes to its last text."""
    problems: list[str] = field(default_factory=list[str])

    def start(self, name: str) -> int:
        """The run of that name, with a store of its own; the process that does it."""
        run = self.folder / name
        words = [*self.words, "-o", str(run), "--written-folder", str(run.with_suffix(".texts"))]
        run.with_suffix(".log").unlink(missing_ok=True)
        if not (child := os.fork()):
            be_the_command(words, run.with_suffix(".log"))
        return child

    def stored(self, name: str) -> int:
        """Texts that are in the run's store, whole."""
        files = (self.folder / f"{name}.texts").glob("*.jsonl")
        return sum(file.read_bytes().count(b"\n") for file in files)

    def is_writing(self, name: str) -> bool:
        """Whether the process of a run has said that it writes."""
        log = self.folder / f"{name}.log"
        return log.exists() and "continuations" in log.read_text(errors="replace")


def run_writing(kills: int, seed: int, model: str) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the verdict."""
    prepare_process()
    chance, done, runs, began = random.Random(seed), 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="afterword-kills-") as scratch:
        folder = Path(scratch)
        lines = make_documents(folder / "all.jsonl", seed).read_text(encoding="utf-8").splitlines()
        documents = folder / "documents.jsonl"
        documents.write_text("".join(f"{line}\n" for line in lines[:12]), encoding="utf-8")
        case = Writing(folder, ("adapt", model, str(documents), *_WORDS.split()))
        _reference(case)
        while done < kills:
            runs += 1
            done = _one(case, f"run-{runs}", done, kills, chance)
    print(f"{done} kills while {model} wrote, {runs} runs given to their end, {time.monotonic() - began:.0f} s")
    print("\n".join(case.problems) or "texts, prepared data, losses and weights are those of a run without a kill")
    return len(case.problems)


def _reference(case: Writing) -> None:
    """The run without a kill; how many texts it wrote, and for how long."""
    child, name = case.start("reference"), "reference"
    _until(lambda: case.is_writing(name))
    opened = time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if (stored := case.stored(name)) > case.texts:
            case.texts, case.seconds = stored, time.monotonic() - opened
        time.sleep(0.01)
    if ended[1]:
        raise SystemExit(f"the run without a kill failed:\n{(case.folder / 'reference.log').read_text()[-3000:]}")
    print(f"reference: {case.texts} texts in {case.seconds:.1f} s", flush=True)


def _one(case: Writing, name: str, done: int, kills: int, chance: random.Random) -> int:
    """Kill a run some times and give it again to its end; how many kills there are now."""
    for _ in range(min(_MOST_IN_A_RUN, kills - done)):
        child, before = case.start(name), case.stored(name)
        if not _killed(case, name, child, chance):
            break
        done += 1
        print(f"{done:>4}  {name:<8}{case.stored(name):>5} of {case.texts} texts stored, {before} before", flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(case.start(name), 0)[1])
    if code:
        case.problems.append(f"{name} ended with {code}: {(case.folder / name).with_suffix('.log').read_text()[-800:]}")
    else:
        ours, theirs = (result_of(case.folder / each) for each in (name, "reference"))
        case.problems += [f"{name}: other {what}" for what in theirs if ours[what] != theirs[what]]
    for path in case.folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done


def _killed(case: Writing, name: str, child: int, chance: random.Random) -> bool:
    """Kill the process at a random moment of its writing; False if by then it had written everything."""
    _until(lambda: case.is_writing(name))
    time.sleep(chance.uniform(0, case.seconds / 4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return case.stored(name) < case.texts


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing happened for {_WAIT_SECONDS:.0f} s")
        time.sleep(0.002)


def result_of(run: Path) -> Mapping[str, Any]:
    """What must be the same of two runs."""
    state, data = (json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("state", "data"))
    used = [json.loads(line) for line in (run / "written.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "texts": {row["key"]: (row["text"], row["ended"]) for row in used},
        "prepared data": (state["windows_sha256"], data["prepared_by_view"]),
        "losses": [(row["step"], row["train/loss_nats"]) for row in rows],
        "weights": (run / "model.safetensors").read_bytes(),
    }
