"""Which windows make up which optimizer step, on which process: from (seed, epoch) alone.

A step is a number of documents or of tokens, over all processes and all accumulation. Resuming needs two
integers, epoch and step; no state is carried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Draw:
    """One window to build, in one epoch. Unweighted ones only keep a process in step with the others."""

    window: int
    epoch: int
    weighted: bool = True


@dataclass(frozen=True)
class StepPlan:
    """How the windows of an epoch are grouped into optimizer steps."""

    lengths: np.ndarray  # [windows] tokens
    documents_per_step: int = 1
    step_tokens: int | None = None
    """Tokens a step instead of documents a step. The number of steps is the same in every epoch."""
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the windows."""
        if self.step_tokens is None:
            return -(-len(self.lengths) // self.documents_per_step)
        return min(len(self.lengths), max(1, round(int(self.lengths.sum()) / self.step_tokens)))

    def steps(self, epoch: int) -> list[np.ndarray]:
        """The windows of every step of an epoch: each window once, in an order of that epoch's own."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.lengths))
        if self.step_tokens is None:
            return np.split(order, range(self.documents_per_step, len(order), self.documents_per_step))
        return np.split(order, self._token_borders(order))

    def _token_borders(self, order: np.ndarray) -> np.ndarray:
        """Where the running token count passes each step's share; every step keeps at least one window."""
        ends, before = self.lengths[order].cumsum(), np.arange(self.steps_per_epoch - 1)
        borders = np.searchsorted(ends, ends[-1] * (before + 1) / self.steps_per_epoch, side="left") + 1
        # Each border at least one after the last, with a window left for every step that follows.
        spare = np.maximum.accumulate(borders - before)
        return np.minimum(spare, len(order) - len(before)) + before


@dataclass
class StepSampler:
    """Batch sampler: the draws of one process, one list for every (step, accumulation) pair of an epoch."""

    plan: StepPlan
    processes: int = 1
    process: int = 0
    accumulation: int = 1
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.accumulation

    def __iter__(self) -> Iterator[list[Draw]]:
        slots = self.processes * self.accumulation
        for windows in self.plan.steps(self.epoch):
            for first in range(self.process, slots, self.processes):
                mine = [Draw(int(window), self.epoch) for window in windows[first::slots]]
                yield mine or [Draw(int(windows[0]), self.epoch, weighted=False)]
