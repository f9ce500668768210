"""From documents to windows, and from draws of windows to micro-batches, in worker processes if asked for."""

from __future__ import annotations

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
from afterword.training.steps import Draw, StepSampler
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
