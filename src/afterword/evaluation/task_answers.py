"""Tasks of the lm-evaluation-harness on a model in memory, document by document, while a run goes on.

The one rule: it changes neither the model nor any random number that is drawn after it.
"""

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afterword.errors import ConfigError
from afterword.evaluation.tasks import task_manager
from afterword.models import causal_lm

MOST_DOCUMENTS = 100
"""Of a task."""


def answer_tasks(
    model: Any,
    tokenizer: Any,
    names: Sequence[str],
    *,
    include_path: str | None = None,
    most: int = MOST_DOCUMENTS,
    batch_size: int = 8,
) -> dict[str, list[float]]:
    """By task, the value of its first metric for each development document, higher being better.

    Development documents are every second one from the first on, at most so many: what is reported is measured on the
    others, or on all. The chat template is applied as `run_tasks` applies it. ConfigError where lm_eval is not
    installed, a task is unknown, or has no value for each document.
    """
    chat, inner = bool(tokenizer.chat_template), causal_lm(model)
    with _undisturbed(model):
        manager = task_manager(names, include_path)
        import lm_eval
        from lm_eval.models import huggingface
        from lm_eval.tasks import get_task_dict

        counts = dict(_document_counts(get_task_dict(list(names), manager)))
        chosen = {name: list(range(0, min(count, 2 * most), 2)) for name, count in counts.items()}
        harness_class: Any = huggingface.HFLM
        harness = harness_class(pretrained=inner, tokenizer=tokenizer, batch_size=batch_size, device=str(inner.device))
        asked: dict[str, Any] = {
            "model": harness,
            "log_samples": True,
            "tasks": list(names),
            "task_manager": manager,
            "samples": chosen,
        }
        asked |= {"apply_chat_template": chat, "fewshot_as_multiturn": chat, "bootstrap_iters": 0}
        results: Any = lm_eval.simple_evaluate(**asked)
    better = results["higher_is_better"]
    return {name: _values(name, results["samples"][name], better.get(name, {})) for name in counts}


def _document_counts(tasks: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    """Every task, those of groups too, with how many documents it has."""
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _document_counts(task)
        else:
            yield str(name), len(task.eval_docs)


def _values(name: str, rows: Sequence[Mapping[str, Any]], better: Mapping[str, bool]) -> list[float]:
    for metric, higher in better.items():
        own = [row for row in rows if metric in row and row.get("filter") == rows[0].get("filter")]
        if higher and own and all(isinstance(row[metric], int | float) for row in own):
            return [float(row[metric]) for row in sorted(own, key=lambda row: row["doc_id"])]
    problem = f"tasks: {name!r} has no metric with a value for each document, so nothing can be paired"
    raise ConfigError(f"{problem}. Give a task that counts right answers.")


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """The harness seeds everything there is, and puts the model into evaluation mode."""
    states, training = (random.getstate(), np.random.get_state()), model.training
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        model.train(training)
