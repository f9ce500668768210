"""Documents → windows → optimizer steps: which windows make up which step on which process, and their batches.

A step is a number of documents or of tokens, over all processes and all accumulation. What is drawn follows from
(seed, epoch) alone: resuming needs two integers, and no state is carried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from afterword.batching import Packing, micro_batches, without_weight
from afterword.corpus import Corpus, read_corpus
from afterword.methods import Method
from afterword.training.processes import main_process_first
from afterword.types import Example
from afterword.views import Prepared, Reading, SpecialTokens, prepare, special_tokens

WORK_FOLDER = ".work"
"""Inside the run folder: the corpus and its windows in Arrow. Removed when the run is finished."""


def as_windows(documents: Any, work: Path, method: Method, tokenizer: Any, reading: Reading) -> Prepared:
    """Windows as they are, or documents (a corpus, a data set, a list of texts or rows) read into windows."""
    if isinstance(documents, Prepared):
        return documents
    view = method.view
    special = special_tokens(tokenizer, view.bos, view.join)
    how = replace(reading, join=view.join, anchored=view.anchored)

    def read() -> Prepared:
        corpus = documents if isinstance(documents, Corpus) else read_corpus(documents, cache_dir=work)
        return prepare(corpus, tokenizer, special, how, view, work / "windows.arrow")

    return main_process_first(read)


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


@dataclass(frozen=True)
class Examples(Dataset[Example]):
    """Examples by draw. What is drawn depends on (seed, epoch, window) alone, never on order or worker."""

    prepared: Prepared
    method: Method
    special: SpecialTokens
    seed: int

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, draw: Draw) -> Example:
        rng = np.random.default_rng((self.seed, draw.epoch, draw.window))
        example = self.method.view.build(self.prepared[draw.window], self.special, rng)
        if not self.method.objective.needs_teacher:
            example = replace(example, teacher_ids=None)
        return example if draw.weighted else without_weight(example)


class StepLoader(DataLoader[Any]):
    """A data loader whose batches are what one process does of one optimizer step (or accumulation part)."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the sampler, which decides the order."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.set_epoch(epoch)


def build_loader(examples: Examples, sampler: StepSampler, packing: Packing, **options: Any) -> StepLoader:
    """The loader of one process. `options` are the DataLoader's own: workers, pinning, prefetching."""
    # A generator of its own: the loader would draw its workers' seeds from the global state, which dropout reads
    # and a checkpoint keeps.
    generator = torch.Generator().manual_seed(examples.seed)
    collate: Any = partial(micro_batches, packing=packing)
    return StepLoader(examples, batch_sampler=sampler, collate_fn=collate, generator=generator, **options)
