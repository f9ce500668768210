"""Benchmarks of skills, handed over to the lm-evaluation-harness.

The one rule: the harness prompts, measures and averages; here is only which model and which tasks, and the
translation of what it found into scores that say how it was found.
"""

import contextlib
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from afterword.distributed import device_type
from afterword.errors import ConfigError
from afterword.evaluation.intervals import paired_change
from afterword.evaluation.measure import VERSIONS, Inputs, Measured, Models
from afterword.models import adapter_folder, is_adapter, load_tokenizer, model_folder
from afterword.types import Estimate, Score

_PER_SAMPLE = "per_sample"
_CONSENT = "HF_ALLOW_CODE_EVAL"
"""The variable by which the metrics that run code are allowed, too."""


def benchmarks(models: Models, inputs: Inputs) -> Measured:
    """The measure of the harness's tasks. It loads the models itself."""
    settings = inputs.settings
    how = {"include_path": settings.tasks_path, "limit": settings.tasks_limit}
    before = run_tasks(settings.reference, settings.tasks, **how) if settings.reference else []
    return Measured(scores=compare_tasks(before, run_tasks(inputs.model, settings.tasks, **how)))


def run_tasks(
    model_path: str, tasks: Sequence[str], *, include_path: str | None = None, limit: int | None = None
) -> list[Score]:
    """The tasks' scores of one model or adapter folder, in `after`, a score for each metric and filter.

    A task is a name that the harness knows, or a task's .yaml file; `include_path` is a folder with more of
    them. The chat template is applied if the tokenizer has one, with few-shot examples as turns. Intervals are
    value ± 1.96 standard errors. `limit` is in documents a task, None for all. Sets the global random seeds,
    as the harness does.
    ConfigError where lm_eval is not installed or a task is unknown.
    """
    manager = task_manager(tasks, include_path)
    import lm_eval

    what: Any = {"tasks": list(tasks), "task_manager": manager}
    model_path = model_folder(model_path)
    model_args = {"pretrained": model_path, "tokenizer": model_path}
    if is_adapter(model_path):
        adapter, base = adapter_folder(model_path)
        model_args |= {"pretrained": base, "peft": adapter}
    chat = bool(load_tokenizer(model_path).chat_template)
    how = {"limit": limit, "fewshot_as_multiturn": chat}
    # Left open, the harness takes CUDA where there is none.
    what |= {"model": "hf", "model_args": model_args, "device": device_type()}
    how_asked = {**how, "apply_chat_template": chat, "confirm_run_unsafe_code": os.environ.get(_CONSENT) == "1"}
    with _refused_by_the_harness():
        results: Any = lm_eval.simple_evaluate(**what, **how_asked, log_samples=True)
    how |= {"lm_eval_version": lm_eval.__version__, "chat_template_applied": chat}
    rows = [(task, key, value) for task, row in results["results"].items() for key, value in row.items() if "," in key]
    found = [(task, key) for task, key, value in rows if "_stderr," not in key and _is_number(value)]
    return [_score(results, how, *place) for place in found]


@contextlib.contextmanager
def _refused_by_the_harness() -> Iterator[None]:
    """A task whose code nobody has consented to is a ConfigError that says how to."""
    try:
        yield
    except ValueError as error:
        if "unsafe" not in str(error):
            raise
        task = re.search(r"task: (\S+)", str(error))
        problem = f"{task[1] if task else 'a task'!r} runs code that the model wrote (unsafe_code)"
        remedy = f"To allow it, set {_CONSENT}=1, on a machine that may come to harm; or leave the task out"
        raise ConfigError(f"tasks: {problem}. {remedy}.") from error


def task_manager(names: Sequence[str], folder: str | None) -> Any:
    """What finds tasks by their names. ConfigError where lm_eval is not installed or a task is unknown."""
    try:
        from lm_eval.tasks import TaskManager as task_manager_class  # noqa: N813
    except ImportError as error:
        raise ConfigError(f"tasks: need lm_eval ({error}). Install it: pip install 'afterword[tasks]'.") from error
    # Reading the harness's own thousands of files takes many seconds; tasks of one's own do not need them.
    for include_defaults in (False, True):
        manager = task_manager_class(include_path=folder, include_defaults=include_defaults)
        unknown = [name for name in names if name not in manager.all_tasks and not Path(name).is_file()]
        if not unknown:
            return manager
    close = {name: difflib.get_close_matches(name, manager.all_tasks) for name in unknown}
    raise ConfigError(f"tasks: the harness knows no task {name!r}. Nearest: {close[name] or 'none'}." for name in close)


def _score(results: Mapping[str, Any], how: Mapping[str, Any], task: str, key: str) -> Score:
    metric, _, filter_name = key.partition(",")
    row = results["results"][task]
    value, stderr = float(row[key]), row.get(f"{metric}_stderr,{filter_name}")
    # The harness writes "N/A" where it has no formula.
    interval = (value - 1.96 * stderr, value + 1.96 * stderr) if _is_number(stderr) else None
    measured = {"task_version": results["versions"].get(task), "num_fewshot": results["n-shot"].get(task)}
    rows = [row for row in results.get("samples", {}).get(task, ()) if row.get("filter") == filter_name]
    details = {**how, **measured, "filter": filter_name, _PER_SAMPLE: _per_sample(rows, metric, value)}
    score = Score(task=f"tasks/{task}", metric=metric, version=VERSIONS["tasks"], n=_count_documents(results, task))
    better = {True: "higher", False: "lower"}.get(results["higher_is_better"].get(task, {}).get(metric))
    return replace(score, after=Estimate(value, interval), better=better, details=details)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count_documents(results: Mapping[str, Any], task: str) -> int:
    if task in results["n-samples"]:
        return results["n-samples"][task]["effective"]
    return sum(_count_documents(results, part) for part in results.get("group_subtasks", {}).get(task, ()))


def _per_sample(rows: Sequence[Mapping[str, Any]], metric: str, value: float) -> dict[str, float] | None:
    """Values by document, or None where the score is not their mean, as for a perplexity or a group."""
    if not rows or not all(isinstance(row.get(metric), int | float) for row in rows):
        return None
    values = {str(row["doc_id"]): float(row[metric]) for row in rows}
    return values if math.isclose(sum(values.values()) / len(values), value, abs_tol=1e-9) else None


def compare_tasks(before: Sequence[Score], after: Sequence[Score]) -> list[Score]:
    """One score for each metric from two runs of the same tasks, before and after adaptation.

    The interval of the change is paired over documents; there is none where the harness gives no value for
    each document. What only one of the runs measured stays one-sided, and nothing is compared across chat
    templates. Values by document are used here and not kept.
    """
    old, new = ({(s.task, s.metric, s.details["filter"]): s for s in scores} for scores in (before, after))
    return [_merged(old.get(key), new.get(key)) for key in {**old, **new}]


def _merged(old: Score | None, new: Score | None) -> Score:
    score: Any = new or old
    details = {name: value for name, value in score.details.items() if name != _PER_SAMPLE}
    change = _change(old, new) if old and new else None
    return replace(score, before=old and old.after, after=new and new.after, change=change, details=details)


def _change(old: Score, new: Score) -> Estimate | None:
    how = [{**score.details, _PER_SAMPLE: None} for score in (old, new)]
    if how[0] != how[1] or old.after is None or new.after is None:
        return None
    first, second = old.details[_PER_SAMPLE], new.details[_PER_SAMPLE]
    if first and second and first.keys() == second.keys():
        return paired_change(list(first.values()), [second[document] for document in first])
    return Estimate(new.after.value - old.after.value, None)
