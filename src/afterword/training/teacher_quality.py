"""What a teacher that is not exact costs, before anything is trained.

Quantised: its distance from the model as it was given. The k likeliest tokens: the probability that they leave out.
"""

import itertools
from typing import Any

import torch

from afterword import models
from afterword.data.batching import to_device
from afterword.training.trainer import AdaptationTrainer

_MEASURED_STEPS = 8
"""Optimizer steps whose teacher views are measured: the first ones of the run."""
_MEASURED_ROWS = 8192
"""Positions of every part, of which is measured what the likeliest tokens leave out."""


def teacher_error(trainer: AdaptationTrainer, precision: str) -> dict[str, Any]:
    """`kl_nats`: mean KL(exact ‖ quantised) per trained position of the first steps; `positions`: how many.

    To be called before the student moves: it is the exact teacher.
    """
    assert isinstance(trainer.teacher, models.FrozenCopy), "only a copy is quantised"
    steps = itertools.islice(trainer.get_train_dataloader(), _MEASURED_STEPS)
    batches = (to_device(batch, trainer.args.device) for batches in steps for batch in batches if batch.teacher)
    with trainer.autocast():
        error, positions = models.quantisation_error_nats(trainer.model, trainer.teacher.model, batches)
    return {"precision": precision, "kl_nats": error, "positions": positions}


def left_out(trainer: AdaptationTrainer) -> dict[str, Any]:
    """`left_out`: by temperature, the mean probability that is in the one bucket; `positions`: how many were looked at.

    Of what was cached first of every part that a teacher reads.
    """
    assert trainer.kept, "only where the likeliest tokens are kept"
    examples: Any = trainer.train_dataset
    cached = [cache.first_rows(_MEASURED_ROWS) for cache in examples.caches if cache is not None]
    masses = trainer.kept.left_out(torch.cat(cached))
    shares = dict(zip(map(str, trainer.kept.temperatures), masses.mean(0).tolist(), strict=True))
    return {"k": trainer.kept.k, "left_out": shares, "positions": len(masses)}


def left_out_in_words(found: dict[str, Any]) -> str:
    """The same in a sentence.

    >>> left_out_in_words({"k": 64, "left_out": {"1.0": 0.0123, "2.0": 0.21}, "positions": 1500})
    'Of the teacher, all but the 64 likeliest tokens is one bucket: 1.23 % at τ = 1, 21 % at τ = 2 (1,500 positions).'
    """
    masses = ", ".join(f"{100 * mass:.3g} % at τ = {float(t):g}" for t, mass in found["left_out"].items())
    said = f"Of the teacher, all but the {found['k']} likeliest tokens is one bucket"
    return f"{said}: {masses} ({found['positions']:,} positions)."


def in_words(error: dict[str, Any]) -> str:
    """The same in a sentence.

    >>> in_words({"precision": "int8", "kl_nats": 0.00123, "positions": 1500})
    'The int8 teacher is 0.00123 nats per token from the exact one: KL(exact ‖ int8), mean of 1,500 tokens.'
    """
    precision, told = error["precision"], f"{error['kl_nats']:.3g} nats per token from the exact one"
    return f"The {precision} teacher is {told}: KL(exact ‖ {precision}), mean of {error['positions']:,} tokens."
