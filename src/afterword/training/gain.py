"""What saving is measured by: the method's own loss on a fixed sample of what the run reads.

The one rule: the sample, its draws and what the teacher says of it are made once, so that two losses differ by the
student's weights alone. They are computed in float32: under autocast every weight is rounded in the product anyway,
and what saving rounds away would not be seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword import models
from afterword.data.batching import micro_batches, to_device
from afterword.objectives import Head
from afterword.training.steps import ExampleKey
from afterword.training.trainer import AdaptationTrainer
from afterword.types import Batch

MOST_WINDOWS = 64
MOST_TOKENS = 16_384
_LEAST_TOKENS = 512
_SHARE = 1 / 30
"""Of all tokens that the run reads: four losses of it take about a twentieth of the run's time."""


@dataclass(frozen=True)
class GainSample:
    """Batches of the sample, each with what the teacher says of it."""

    trainer: AdaptationTrainer
    batches: tuple[Batch, ...]
    teachers: tuple[tuple[Tensor, Head] | None, ...]
    """Hidden states of the teacher at the trained positions, on the CPU, with its head."""

    @torch.no_grad()
    def loss(self, model: Any) -> float:
        """What a step's loss would be on the whole sample, in nats, of a model in the place of the student."""
        terms = self.trainer.terms
        sums = torch.zeros(len(terms), 2, dtype=torch.float64)
        with models.only_reading(model):
            for batch, teacher in zip(self.batches, self.teachers, strict=True):
                here = to_device(batch, model.device)
                student = (models.trained_states(model, here.student).float(), models.head_of(model))
                said = (teacher[0].to(model.device), teacher[1]) if teacher else None
                weighted, _ = self.trainer.weighted(terms[batch.term].objective, student, said, here)
                sums[batch.term] += torch.tensor([float(weighted), batch.total_weight], dtype=torch.float64)
        pairs = zip(terms, sums.tolist(), strict=True)
        return sum(term.weight * loss / weight for term, (loss, weight) in pairs if weight)


def gain_sample(trainer: AdaptationTrainer, *, everything: bool = False) -> GainSample:
    """The sample of a run, read by its teacher as that is now. Draws are those of epoch 0; dropout is off.

    `everything`: of all that the run reads, whatever that takes.
    """
    examples: Any = trainer.train_dataset
    terms_of = [[n for n, term in enumerate(trainer.terms) if term.reads(part.source)] for part in trainer.parts]
    ends = np.cumsum([len(part.windows) for part in trainer.parts])
    draws = [
        ExampleKey(int(window), 0, term)
        for window in (_read(trainer) if everything else _sampled(trainer))
        for term in terms_of[int(np.searchsorted(ends, window, side="right"))]
    ]
    batches, teachers = list[Batch](), list[Any]()
    with torch.no_grad(), models.only_reading(trainer.model):
        for batch in micro_batches([examples[draw] for draw in draws], trainer.packing):
            here = to_device(batch, trainer.model.device)
            said = trainer.teacher_reads(here, trainer.terms[batch.term].objective)
            batches.append(batch)
            teachers.append((said[0].cpu(), said[1]) if said else None)
    return GainSample(trainer, tuple(batches), tuple(teachers))


def _read(trainer: AdaptationTrainer) -> np.ndarray:
    """Every window that the run reads."""
    return trainer.plan.windows(trainer.total_steps)


def _sampled(trainer: AdaptationTrainer) -> np.ndarray:
    """At random among those that the run reads, some of the documents' own among them."""
    lengths = np.concatenate([part.lengths for part in trainer.parts])
    order = np.random.default_rng((trainer.args.seed, 1)).permutation(_read(trainer))
    # A window of the documents comes first, whatever general text there is beside them.
    own = order < len(trainer.parts[0].windows)
    order = np.concatenate([order[own][:1], np.delete(order, np.argmax(own))])
    tokens = sum(row["tokens"] for row in trainer.plan.realised(trainer.total_steps))
    most = min(MOST_TOKENS, max(_LEAST_TOKENS, _SHARE * tokens))
    count = int(np.searchsorted(lengths[order].cumsum(), most, "right"))
    return np.sort(order[: max(1, min(MOST_WINDOWS, count))])
