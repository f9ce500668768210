"""From draws to micro-batches, in worker processes if asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from afterword.batching import Packing, micro_batches, without_weight
from afterword.methods import Method
from afterword.training.steps import Draw, StepSampler
from afterword.types import Batch, Example
from afterword.views import Prepared, SpecialTokens


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
        sampler = self.batch_sampler
        assert isinstance(sampler, StepSampler)
        sampler.set_epoch(epoch)


def build_loader(examples: Examples, sampler: StepSampler, packing: Packing, **options: Any) -> StepLoader:
    """The loader of one process. `options` are the DataLoader's own: workers, pinning, prefetching."""
    return StepLoader(
        examples,
        batch_sampler=sampler,
        collate_fn=partial(_collate, packing=packing),
        # A generator of its own: the loader would draw its workers' seeds from the global state, which dropout
        # reads and a checkpoint keeps.
        generator=torch.Generator().manual_seed(examples.seed),
        **options,
    )


def _collate(examples: Sequence[Example], *, packing: Packing) -> list[Batch]:
    return micro_batches(examples, packing)
