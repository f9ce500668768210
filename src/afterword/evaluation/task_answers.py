"""Benchmark tasks on a model in memory, item by item, while a run goes on.

The one rule: it changes neither the model nor any random number that is drawn after it.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from afterword.errors import ConfigError
from afterword.evaluation.task_loading import Asking, LoadedTasks, load_tasks
from afterword.evaluation.task_model import in_memory
from afterword.evaluation.tasks import COUNTED, PER_SAMPLE, run_tasks

MOST_ITEMS = 100
"""Of a task."""


def tasks_to_keep(names: Sequence[str], *, tasks_path: str | None = None) -> LoadedTasks:
    """The tasks that a run is held to, on their dev items: what is reported is measured on the others, or on all.

    At most MOST_ITEMS of each, the same for all runs. ConfigError as of `load_tasks`.
    """
    with _same_random_numbers():
        return load_tasks(names, tasks_path=tasks_path, asking=Asking(limit=MOST_ITEMS, split="dev"))


def answer_tasks(model: Any, tokenizer: Any, tasks: LoadedTasks) -> dict[str, list[float]]:
    """By task, the values of the metric that counts for its items, from 0 to 1.

    ConfigError where a task has no value for each item.
    """
    training = model.training
    try:
        with _same_random_numbers():
            scores = run_tasks(in_memory(model, tokenizer), tokenizer, tasks)
    finally:
        # The harness puts the model into evaluation mode.
        model.train(training)
    counted = [score for score in scores if score.details[COUNTED]]
    if not counted:
        names = ", ".join(task.asked.name for task in tasks.tasks)
        problem = f"tasks: {names} have no metric with a value for each item, so nothing can be paired"
        raise ConfigError(f"{problem}. Give tasks that count right answers.")
    return {
        score.task.removeprefix("tasks/"): list(chain.from_iterable(score.details[PER_SAMPLE].values()))
        for score in counted
    }


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """The harness seeds everything there is."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
