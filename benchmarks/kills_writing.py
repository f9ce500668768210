"""Kill a run again and again while its model writes, go on with it, and compare it with one that was never killed.

    python benchmarks/kills.py --writing 20

Every kill is a SIGKILL at a random moment after it said that it writes, and counts only if texts were missing then. A
run is killed several times, then given again to its end. Every text it used, its prepared data, the losses of its steps
and its weights must then be the same, to the bit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from kills_of_a_run import Killing, run_killed, until, until_ended

_WORDS = "--method continuation --continuations 40 --new-tokens 16 --documents-per-step 4 --max-steps 3 --save-steps 1"


@dataclass
class Writing(Killing):
    """A run with a store of its own, and what it comes to when it is not killed."""

    texts: int = 0
    """Of the run that was never killed."""
    most_in_a_run = 8

    def store(self, name: str) -> Path:
        """Its own."""
        return self.folder / f"{name}.texts"

    def attend(self, child: int) -> None:
        """How many texts are written, and for how long: from when it says that it writes to its last text."""
        until(lambda: self.is_writing("reference"))
        opened = time.monotonic()

        def look() -> None:
            """When the latest text came."""
            if (stored := self.stored("reference")) > self.texts:
                self.texts, self.seconds = stored, time.monotonic() - opened

        until_ended(self, child, look, 0.01)
        print(f"reference: {self.texts} texts in {self.seconds:.1f} s", flush=True)

    def kill(self, name: str, child: int, chance: random.Random) -> str | None:
        """At a random moment of its writing; None if by then it had written everything."""
        before = self.stored(name)
        until(lambda: self.is_writing(name))
        time.sleep(chance.uniform(0, self.seconds / 4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stored = self.stored(name)
        return f"{stored:>5} of {self.texts} texts stored, {before} before" if stored < self.texts else None

    def stored(self, name: str) -> int:
        """Texts that are in the run's store, whole."""
        return sum(file.read_bytes().count(b"\n") for file in self.store(name).glob("*.jsonl"))

    def is_writing(self, name: str) -> bool:
        """Whether the process of a run has said that it writes."""
        return "continuations" in self.said(name)


def run_writing(kills: int, seed: int, model: str) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the verdict."""
    same = "texts, prepared data, losses and weights"
    return run_killed(Writing, _WORDS, kills, seed, model, doing="wrote", same=same)
