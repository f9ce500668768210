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
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import last_step
from kills_of_a_run import Killing, run_killed, until, until_ended

_BLOCK, _BLOCKS = 3, 4
"""Steps of a block, and how many blocks a run has. The first has the texts that were written before training."""
_WORDS = f"--method on_policy --refresh-steps {_BLOCK} --max-steps {_BLOCK * _BLOCKS} --save-steps 2 --own-questions 4"
_WORDS += " --new-tokens 24 --documents-per-step 4 --learning-rate 1e-4 --lr-scheduler-type constant"
_WORDS += " --precision float32"
"""Not what is faster here at the moment: two runs would not find the same."""
_LOOK_SECONDS = 0.005


@dataclass
class Rewriting(Killing):
    """A run of several blocks. `seconds` is what one takes to be written."""

    most_in_a_run = 6

    def store(self, name: str) -> Path:
        """The same for all: what is written before training is no matter here."""
        return self.folder / "texts"

    def attend(self, child: int) -> None:
        """How long a block takes to be written."""
        writing = 0.0

        def look() -> None:
            """Whether one is being written."""
            nonlocal writing
            writing += _LOOK_SECONDS if self.block_lacking("reference") else 0

        until_ended(self, child, look, _LOOK_SECONDS)
        self.seconds = writing / (_BLOCKS - 1)
        print(f"reference: {_BLOCKS - 1} blocks, each written in {self.seconds:.2f} s", flush=True)

    def kill(self, name: str, child: int, chance: random.Random) -> str | None:
        """At a random moment of writing one of the blocks that are left; None if the run ended before."""
        wanted = chance.randint(1, _BLOCKS - 1)
        if not until(lambda: self.is_training(name) and self.block_lacking(name) >= wanted, child):
            return None
        time.sleep(chance.uniform(0, self.seconds))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            return None
        block = self.block_lacking(name)
        return f"before block {block}, after step {last_step(self.folder / name)}" if block else ""

    def block_lacking(self, name: str) -> int:
        """The block that is next by the steps of a run, if its texts are not there; else 0."""
        run = self.folder / name
        block, inside = divmod(last_step(run), _BLOCK)
        there = inside or not 0 < block < _BLOCKS or (run / "rollouts" / f"block-{block:05d}.jsonl").exists()
        return 0 if there else block

    def is_training(self, name: str) -> bool:
        """Whether the process of a run has begun its steps."""
        return "\nstep " in self.said(name)

    def result_of(self, name: str) -> Mapping[str, Any]:
        """The texts of blocks, too."""
        blocks = sorted((self.folder / name / "rollouts").iterdir())
        texts = {path.name: path.read_text(encoding="utf-8") for path in blocks}
        return {**super().result_of(name), "texts of blocks": texts}


def run_rewriting(kills: int, seed: int, model: str) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the verdict."""
    _take_what_is_said_for_questions()
    same = "texts of every block, losses and weights"
    return run_killed(Rewriting, _WORDS, kills, seed, model, doing="wrote anew", same=same)


def _take_what_is_said_for_questions() -> None:
    """Small models ask none; what is killed here is the writing of answers, to whatever stands in their place."""
    from afterword.methods import own_questions

    own_questions.question_in = str.strip
