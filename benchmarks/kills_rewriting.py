"""Kill a run again and again while its student writes anew in the midst of training, and go on with it.

    python benchmarks/kills.py --rewriting 20

Every kill is a SIGKILL at a random moment between the last step of a block and the first of the next, and counts only
if the texts of the next block were not there then. A run is killed several times, then given again to its end. Its
texts, before training and before each block, the losses of its steps and its weights must then be those of a run that
was never killed, to the bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills import last_step, make_documents
from kills_commands import be_the_command, prepare_process
from kills_writing import result_of

_BLOCK, _BLOCKS = 3, 4
"""Steps of a block, and how many blocks a run has. The first has the texts that were written before training."""
_MOST_IN_A_RUN = 6
_WAIT_SECONDS = 300.0
_WORDS = f"--method on_policy --refresh-steps {_BLOCK} --max-steps {_BLOCK * _BLOCKS} --save-steps 2 --own-questions 4"
_WORDS += " --new-tokens 24 --documents-per-step 4 --learning-rate 1e-4 --lr-scheduler-type constant"
_WORDS += " --precision float32"
"""Not what is faster here at the moment: two runs would not find the same."""


@dataclass
class Rewriting:
    """The run that is killed: what it reads and how, and how long it writes a block when it is not."""

    folder: Path
    words: tuple[str, ...]
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list[str])

    def start(self, name: str) -> int:
        """The run of that name; the process that does it."""
        run = self.folder / name
        run.with_suffix(".log").unlink(missing_ok=True)
        if not (child := os.fork()):
            words = [*self.words, "-o", str(run), "--written-folder", str(self.folder / "texts")]
            be_the_command(words, run.with_suffix(".log"))
        return child

    def block_lacking(self, name: str) -> int:
        """The block that is next by the steps of a run, if its texts are not there; else 0."""
        run = self.folder / name
        block, inside = divmod(last_step(run), _BLOCK)
        there = inside or not 0 < block < _BLOCKS or (run / "rollouts" / f"block-{block:05d}.jsonl").exists()
        return 0 if there else block

    def is_training(self, name: str) -> bool:
        """Whether the process of a run has begun its steps."""
        log = self.folder / f"{name}.log"
        return log.exists() and "\nstep " in log.read_text(errors="replace")


def run_rewriting(kills: int, seed: int, model: str) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the verdict."""
    prepare_process()
    _take_what_is_said_for_questions()
    chance, done, runs, began = random.Random(seed), 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="afterword-kills-") as scratch:
        folder = Path(scratch)
        lines = make_documents(folder / "all.jsonl", seed).read_text(encoding="utf-8").splitlines()
        documents = folder / "documents.jsonl"
        documents.write_text("".join(f"{line}\n" for line in lines[:12]), encoding="utf-8")
        case = Rewriting(folder, ("adapt", model, str(documents), *_WORDS.split()))
        _reference(case)
        while done < kills:
            runs += 1
            done = _one(case, f"run-{runs}", done, kills, chance)
    print(f"{done} kills while {model} wrote anew, {runs} runs given to their end, {time.monotonic() - began:.0f} s")
    print("\n".join(case.problems) or "texts of every block, losses and weights are those of a run without a kill")
    return len(case.problems)


def _take_what_is_said_for_questions() -> None:
    """Small models ask none; what is killed here is the writing of answers, to whatever stands in their place."""
    from afterword.methods import own_questions

    own_questions.question_in = str.strip


def _reference(case: Rewriting) -> None:
    """The run without a kill; how long a block takes to be written."""
    child, writing = case.start("reference"), 0.0
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if case.block_lacking("reference"):
            writing += 0.005
        time.sleep(0.005)
    if ended[1]:
        raise SystemExit(f"the run without a kill failed:\n{(case.folder / 'reference.log').read_text()[-3000:]}")
    case.seconds = writing / (_BLOCKS - 1)
    print(f"reference: {_BLOCKS - 1} blocks, each written in {case.seconds:.2f} s", flush=True)


def _one(case: Rewriting, name: str, done: int, kills: int, chance: random.Random) -> int:
    """Kill a run some times and give it again to its end; how many kills there are now."""
    run, proven = case.folder / name, 0
    while proven < min(_MOST_IN_A_RUN, kills - done):
        child = case.start(name)
        if not _killed(case, name, child, chance):
            break
        if block := case.block_lacking(name):
            proven += 1
            print(f"{done + proven:>4}  {name:<8}before block {block}, after step {last_step(run)}", flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(case.start(name), 0)[1])
    if code:
        case.problems.append(f"{name} ended with {code}: {run.with_suffix('.log').read_text()[-800:]}")
    else:
        ours, theirs = (_result_of(case.folder / each) for each in (name, "reference"))
        case.problems += [f"{name}: other {what}" for what in theirs if ours[what] != theirs[what]]
    for path in case.folder.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return done + proven


def _killed(case: Rewriting, name: str, child: int, chance: random.Random) -> bool:
    """Kill the process at a random moment of writing one of the blocks that are left; False if it ended before."""
    deadline = time.monotonic() + _WAIT_SECONDS
    wanted = chance.randint(1, _BLOCKS - 1)
    while not (case.is_training(name) and case.block_lacking(name) >= wanted):
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing happened for {_WAIT_SECONDS:.0f} s")
        time.sleep(0.002)
    time.sleep(chance.uniform(0, case.seconds))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _result_of(run: Path) -> Mapping[str, Any]:
    """What must be the same of two runs."""
    blocks = {path.name: path.read_text(encoding="utf-8") for path in (run / "rollouts").iterdir()}
    return {**result_of(run), "texts of blocks": blocks}
