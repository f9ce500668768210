"""Optimizer and schedule are tried on one weight before a model is loaded: what they refuse is one sentence."""

import pytest

from afterword.errors import ConfigError
from afterword.methods import METHODS
from afterword.training import training_arguments
from afterword.training.optimizers import try_optimizer


def _arguments(tmp_path, **given):
    return training_arguments(METHODS["finetune"], output_dir=str(tmp_path), **given)


@pytest.mark.parametrize(
    ("given", "named", "words"),
    [
        ({"adam_beta1": 5.0}, "trainer.adam_beta1", "beta"),
        ({"adam_epsilon": -1.0}, "trainer.adam_epsilon", "epsilon"),
        ({"optim_args": "x"}, "trainer.optim_args", "x"),
        ({"optim_args": "nonsense=1", "optim": "sgd"}, "trainer.optim_args", "no effect on SGD"),
        ({"learning_rate": 1e300}, "learning_rate", "1e+300"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type", "min_lr"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_type", "num_decay_steps"),
        ({"lr_scheduler_kwargs": {"nonsense": 1}, "lr_scheduler_type": "cosine"}, "lr_scheduler_type", "nonsense"),
    ],
)
def test_what_cannot_be_used_is_a_sentence_that_names_it(given, named, words, tmp_path):
    ours = ("learning_rate", "lr_scheduler_type")
    by_name = {name if name in ours else f"trainer.{name}": value for name, value in given.items()}
    with pytest.raises(ConfigError) as caught:
        try_optimizer(_arguments(tmp_path, **given), by_name)
    (problem,) = caught.value.problems
    assert named in problem
    assert words in problem


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"optim": "adafactor", "lr_scheduler_type": "constant"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}, "warmup_steps": 0.1},
        {"lr_scheduler_type": "polynomial", "max_steps": 7},
        {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 1e-3},
    ],
)
def test_what_can_be_used_passes(given, tmp_path):
    try_optimizer(_arguments(tmp_path, **given), given)
