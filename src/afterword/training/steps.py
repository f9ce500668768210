"""Documents → windows → optimizer steps: which windows make up which step on which process, and their batches.

A step is a number of documents or of tokens, over all processes and all accumulation. What is drawn follows from
(seed, epoch) alone: resuming needs two integers, and no state is carried.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from afterword.data.batching import Packing, micro_batches, without_weight
from afterword.data.mixture import SourceStream, interleaved
from afterword.methods import Term
from afterword.models import TeacherCache
from afterword.training.sources import Source
from afterword.training.teacher_texts import from_cache
from afterword.types import Example, Window

WORK_FOLDER = ".work"
"""Inside the run folder: the corpus and its windows in Arrow. Removed when the run is finished."""


@dataclass(frozen=True, slots=True)
class ExampleKey:
    """One window to build, in one epoch, for one term. Unweighted ones only keep a process in step with the others."""

    window: int
    epoch: int
    term: int = 0
    weighted: bool = True
    block: int = 0
    """Of steps, where the student writes passages anew; see rollouts.py."""


@dataclass(frozen=True)
class StepPlan:
    """How the windows of an epoch are grouped into optimizer steps."""

    lengths: np.ndarray  # [windows] tokens of the documents
    documents_per_step: int = 1
    step_tokens: int | None = None
    """Tokens a step, of all that is read, instead of documents. The number of steps is the same in every epoch."""
    seed: int = 0
    streams: tuple[SourceStream, ...] = ()
    """General text, spread evenly over the steps. Its windows are numbered after those of the documents."""

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """Numbers of the documents' first window, and of every stream's."""
        return (0, *(stream.first for stream in self.streams))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the documents."""
        if self.step_tokens is None:
            return -(-len(self.lengths) // self.documents_per_step)
        tokens = int(self.lengths.sum()) + sum(stream.tokens_per_epoch for stream in self.streams)
        return min(len(self.lengths), max(1, round(tokens / self.step_tokens)))

    def steps(self, epoch: int) -> list[np.ndarray]:
        """The windows of every step of an epoch: each document's once, in an order of that epoch's own."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.lengths))
        if not self.streams and self.step_tokens is None:
            return np.split(order, range(self.documents_per_step, len(order), self.documents_per_step))
        groups = [order, *(stream.samples(epoch) for stream in self.streams)]
        if self.step_tokens is None:
            order, places = interleaved(groups, [np.ones(len(group)) for group in groups])
            steps = (places * len(self.lengths) / self.documents_per_step).astype(np.int64)
            return np.split(order, np.searchsorted(steps, range(1, self.steps_per_epoch)))
        lengths = np.concatenate([self.lengths, *(stream.lengths for stream in self.streams)])
        order, _ = interleaved(groups, [lengths[group] for group in groups]) if self.streams else (order, None)
        return np.split(order, self._token_borders(lengths[order]))

    def _token_borders(self, lengths: np.ndarray) -> np.ndarray:
        """Where the running token count passes each step's share; every step keeps at least one window."""
        ends, before = lengths.cumsum(), np.arange(self.steps_per_epoch - 1)
        shares: np.ndarray = ends[-1] * (before + 1) / self.steps_per_epoch
        borders: np.ndarray = np.searchsorted(ends, shares, side="left") + 1
        # Each border at least one after the last, with a window left for every step that follows.
        spare = np.maximum.accumulate(borders - before)
        return np.minimum(spare, len(lengths) - len(before)) + before

    def windows(self, steps: int) -> np.ndarray:
        """The windows that so many steps read, each once, in their order."""
        return np.unique(self._read(steps))

    def epochs(self, steps: int) -> Iterator[tuple[int, np.ndarray]]:
        """Of every epoch that so many steps reach: its number, and the windows that they read in it."""
        for epoch in range(-(-steps // self.steps_per_epoch)):
            yield epoch, np.concatenate(self.steps(epoch)[: steps - epoch * self.steps_per_epoch])

    def _read(self, steps: int) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(windows for _, windows in self.epochs(steps))])

    def realised(self, steps: int) -> list[dict[str, float]]:
        """What so many steps read of the documents and of every stream: samples, tokens, epochs, shares of both.

        `ran_out`: whether a stream had no passes left for all that its share takes.
        """
        lengths = np.concatenate([self.lengths, *(stream.lengths for stream in self.streams)])
        window = self._read(steps)
        source = np.searchsorted(self.firsts, window, side="right") - 1
        samples = np.bincount(source, minlength=len(self.firsts))
        tokens = np.bincount(source, weights=lengths[window], minlength=len(self.firsts))
        sizes = np.diff([*self.firsts, len(lengths)])
        ran_out = [False, *(stream.runs_out(-(-steps // self.steps_per_epoch)) for stream in self.streams)]
        return [
            {
                "samples": int(samples[i]),
                "tokens": int(tokens[i]),
                "epochs": float(samples[i] / sizes[i]),
                "sample_share": float(samples[i] / samples.sum()),
                "token_share": float(tokens[i] / tokens.sum()),
                "ran_out": ran_out[i],
            }
            for i in range(len(self.firsts))
        ]


@dataclass
class StepSampler:
    """Batch sampler: the draws of one process, one list for every (step, accumulation) pair of an epoch."""

    plan: StepPlan
    processes: int = 1
    process: int = 0
    accumulation: int = 1
    epoch: int = 0
    terms: tuple[tuple[int, ...], ...] = ((0,),)
    """Terms that read a window of the documents, and of every source of general text."""
    block_steps: int | None = None
    """Steps of a block; None: there is one block."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.steps_per_epoch * self.accumulation

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        slots = self.processes * self.accumulation
        for place, windows in enumerate(self.plan.steps(self.epoch), start=self.epoch * self.plan.steps_per_epoch):
            block = place // self.block_steps if self.block_steps else 0
            for first in range(self.process, slots, self.processes):
                mine = [draw for window in windows[first::slots] for draw in self._draws(int(window), block)]
                # General text may leave a process without its share of a small step.
                yield mine or [replace(draw, weighted=False) for draw in self._draws(int(windows[0]), block)]

    def _draws(self, window: int, block: int) -> list[ExampleKey]:
        source = int(np.searchsorted(self.plan.firsts, window, side="right")) - 1
        return [ExampleKey(window, self.epoch, term, block=block) for term in self.terms[source]]


@dataclass(frozen=True)
class Examples(Dataset[Example]):
    """Examples by draw. What is drawn depends on (seed, epoch, window) alone, never on order or worker."""

    sources: tuple[Source, ...]
    terms: tuple[Term, ...]
    seed: int
    cache: TeacherCache | None = None
    """What the teacher says of it; None where the teacher is there to read."""
    rewritten: Callable[[Window, int], Window] | None = None
    """A window of the documents with what the student has written for a block of steps; None: it writes nothing."""

    def __len__(self) -> int:
        return sum(len(each.windows) for each in self.sources)

    def __getitem__(self, draw: ExampleKey) -> Example:
        source, index = self.located(draw.window)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.window))
        term = self.terms[draw.term]
        window = source.windows[index]
        if self.rewritten and term.view.rewriting and source.source is None:
            window = self.rewritten(window, draw.block)
        example = term.view.build(window, source.special, rng)
        if not term.objective.needs_teacher:
            example = replace(example, teacher_ids=None)
        elif self.cache is not None:
            example = from_cache(example, window, source.special, self.cache)
        line = self._first_line(source) + (example.source if source.source is None else 0)
        example = replace(example, source=line, term=draw.term)
        return example if draw.weighted else without_weight(example)

    def located(self, window: int) -> tuple[Source, int]:
        """The source that a window is of, and its index there."""
        for source in self.sources:
            if window < len(source.windows):
                return source, window
            window -= len(source.windows)
        raise AssertionError("the plan draws windows that there are")

    def _first_line(self, source: Source) -> int:
        """The number of the first name of a source, among those of all."""
        before = itertools.takewhile(lambda each: each is not source, self.sources)
        return sum(len(each.names) for each in before)


class StepLoader(DataLoader[Any]):
    """A data loader whose batches are what one process does of one optimizer step (or accumulation part)."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the sampler, which decides the order."""
        self.draws.set_epoch(epoch)

    @property
    def draws(self) -> StepSampler:
        """What each of its batches is built of."""
        assert isinstance(self.batch_sampler, StepSampler)  # pyright: ignore[reportUnknownMemberType]  (of anything)
        return self.batch_sampler


def build_loader(
    examples: Examples,
    sampler: StepSampler,
    packing: Packing,
    workers: int = 0,
    *,
    persistent: bool = False,
    ahead: int | None = None,
) -> StepLoader:
    """The loader of one process. `workers` read in its stead; each has `ahead` steps ready, None: as torch does."""
    # A generator of its own: the loader would draw its workers' seeds from the global state, which dropout reads
    # and a checkpoint keeps.
    generator = torch.Generator().manual_seed(examples.seed)
    collate: Any = partial(micro_batches, packing=packing)
    return StepLoader(
        examples,
        batch_sampler=sampler,
        collate_fn=collate,
        generator=generator,
        num_workers=workers,
        persistent_workers=persistent,
        prefetch_factor=ahead,
    )
