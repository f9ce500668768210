"""What a quantised teacher costs: its distance from the model as it was given, before anything is trained."""

import itertools
from typing import Any

from afterword import models
from afterword.data.batching import to_device
from afterword.training.trainer import AdaptationTrainer

_MEASURED_STEPS = 8
"""Optimizer steps whose teacher views are measured: the first ones of the run."""


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


def in_words(error: dict[str, Any]) -> str:
    """The same in a sentence.

    >>> in_words({"precision": "int8", "kl_nats": 0.00123, "positions": 1500})
    'The int8 teacher is 0.00123 nats per token from the exact one: KL(exact ‖ int8), mean of 1,500 tokens.'
    """
    precision, told = error["precision"], f"{error['kl_nats']:.3g} nats per token from the exact one"
    return f"The {precision} teacher is {told}: KL(exact ‖ {precision}), mean of {error['positions']:,} tokens."
