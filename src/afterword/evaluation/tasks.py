"""Benchmarks of skills, handed over to the lm-evaluation-harness.

The one rule: the harness prompts, measures and averages; here is only which model and which tasks, and the
translation of what it found into scores that say how it was found.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from afterword.errors import ConfigError
from afterword.evaluation.statistics import paired_change
from afterword.types import Estimate, Score

VERSION = 1
_PER_SAMPLE = "per_sample"
# What two measurements must share to be compared.
_SAME = ("task_version", "num_fewshot", "limit", "chat_template_applied")


def run_tasks(
    model_path: str,
    tasks: Sequence[str],
    *,
    include_path: str | None = None,
    limit: int | None = None,
    batch_size: int | str = 1,
    device: str | None = None,
    num_fewshot: int | None = None,
    confirm_run_unsafe_code: bool = False,
) -> list[Score]:
    """The tasks' scores of one model or adapter folder, in `after`, a score for each metric and filter.

    A task is a name that the harness knows, or a path to a task's .yaml file; `include_path` is a folder
    with more of them. The chat template is applied if the tokenizer has one, with few-shot examples as turns.
    Intervals are value ± 1.96 standard errors. `limit` is in documents a task, `None` for all. Tasks that
    run what the model wrote need `confirm_run_unsafe_code`. Sets the global random seeds, as the harness
    does. ConfigError where lm_eval is not installed or a task is unknown.
    """
    harness, task_manager_class = _harness()
    names, folders = _resolved(tasks, include_path)
    manager = _task_manager(task_manager_class, names, folders)
    model_args = _model_args(model_path)
    has_chat_template = _has_chat_template(model_args["tokenizer"])
    results = harness.simple_evaluate(
        model="hf",
        model_args=model_args,
        tasks=names,
        num_fewshot=num_fewshot,
        batch_size=batch_size,
        device=device,
        limit=limit,
        apply_chat_template=has_chat_template,
        fewshot_as_multiturn=has_chat_template,
        task_manager=manager,
        log_samples=True,
        confirm_run_unsafe_code=confirm_run_unsafe_code,
    )
    how = {
        "lm_eval_version": harness.__version__,
        "chat_template_applied": has_chat_template,
        "fewshot_as_multiturn": has_chat_template,
        "limit": limit,
    }
    return list(_scores(results, how))


def _harness() -> tuple[Any, Any]:
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(
            f"tasks: need the lm-evaluation-harness ({error}). Install it: pip install 'afterword[tasks]'."
        ) from error
    return lm_eval, TaskManager


def _resolved(tasks: Sequence[str], include_path: str | None) -> tuple[list[str], list[str]]:
    """Task names, and the folders that hold those which are not the harness's own."""
    files = {task: Path(task) for task in tasks if task.endswith((".yaml", ".yml"))}
    missing = [f"tasks: there is no file {path}." for path in files.values() if not path.is_file()]
    if missing:
        raise ConfigError(missing)
    names = [_name_in(files[task]) if task in files else task for task in tasks]
    folders = dict.fromkeys(str(path.resolve().parent) for path in files.values())
    return names, ([include_path] if include_path else []) + list(folders)


class _TaskLoader(yaml.SafeLoader):
    """Reads a task file without importing the functions that it names."""


_TaskLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _name_in(path: Path) -> str:
    try:
        task = yaml.load(path.read_text("utf-8"), _TaskLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"tasks: {path} is not a YAML file ({error}).") from error
    name = (task.get("group") or task.get("task")) if isinstance(task, dict) else None
    if not isinstance(name, str):
        raise ConfigError(f"tasks: {path} has no `task:` with a name. Give the task one.")
    return name


def _task_manager(task_manager_class: Any, names: Sequence[str], folders: Sequence[str]) -> Any:
    if folders:
        # Reading the harness's own thousands of files takes many seconds; single tasks do not need them.
        manager = task_manager_class(include_path=folders, include_defaults=False)
        if set(names) <= set(manager.all_subtasks):
            return manager
    manager = task_manager_class(include_path=folders or None)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError([_unknown(name, manager.all_tasks) for name in unknown])
    return manager


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known)
    remedy = f"Did you mean {', '.join(nearest)}?" if nearest else "`lm_eval ls tasks` lists all."
    return f"tasks: the harness knows no task {name!r}. {remedy}"


def _model_args(model_path: str) -> dict[str, str]:
    folder = Path(model_path)
    if not (folder / "adapter_config.json").is_file():
        return {"pretrained": model_path, "tokenizer": model_path}
    base = json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    return {"pretrained": base, "peft": model_path, "tokenizer": model_path if has_tokenizer else base}


def _has_chat_template(tokenizer_path: str) -> bool:
    from transformers import AutoTokenizer

    return bool(AutoTokenizer.from_pretrained(tokenizer_path).chat_template)


def _scores(results: Mapping[str, Any], how: Mapping[str, Any]) -> Iterator[Score]:
    for task, row in results["results"].items():
        for key, value in row.items():
            metric, comma, filter_name = key.partition(",")
            if comma and not metric.endswith("_stderr") and _is_number(value):
                yield _score(results, how, task, metric, filter_name)


def _score(results: Mapping[str, Any], how: Mapping[str, Any], task: str, metric: str, filter_name: str) -> Score:
    row = results["results"][task]
    value = float(row[f"{metric},{filter_name}"])
    higher_is_better = results["higher_is_better"].get(task, {}).get(metric)
    details = {
        **how,
        "filter": filter_name,
        "task_version": results["versions"].get(task),
        "num_fewshot": results["n-shot"].get(task),
        _PER_SAMPLE: _per_sample(results, task, metric, filter_name, value),
    }
    return Score(
        task=f"tasks/{task}",
        metric=metric,
        version=VERSION,
        n=_count_documents(results, task),
        after=Estimate(value, _interval_95(value, row.get(f"{metric}_stderr,{filter_name}"))),
        better={True: "higher", False: "lower"}.get(higher_is_better),
        details=details,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _interval_95(value: float, stderr: Any) -> tuple[float, float] | None:
    # The harness writes "N/A" where it has no formula.
    return (value - 1.96 * stderr, value + 1.96 * stderr) if _is_number(stderr) else None


def _count_documents(results: Mapping[str, Any], task: str) -> int:
    if task in results["n-samples"]:
        return results["n-samples"][task]["effective"]
    return sum(_count_documents(results, part) for part in results.get("group_subtasks", {}).get(task, ()))


def _per_sample(
    results: Mapping[str, Any], task: str, metric: str, filter_name: str, value: float
) -> dict[str, float] | None:
    """Values by document, or None where the score is not their mean, as for a perplexity or a group."""
    rows = [row for row in results.get("samples", {}).get(task, ()) if row.get("filter") == filter_name]
    if not rows or not all(isinstance(row.get(metric), int | float) for row in rows):
        return None
    values = {str(row["doc_id"]): float(row[metric]) for row in rows}
    return values if math.isclose(sum(values.values()) / len(values), value, abs_tol=1e-9) else None


def compare_tasks(before: Sequence[Score], after: Sequence[Score]) -> list[Score]:
    """One score for each metric from two runs of the same tasks, before and after adaptation.

    The interval of the change is paired over documents; there is none where the harness gives no value for
    each document. What only one of the runs measured stays one-sided. ConfigError where the task's version,
    examples, limit or chat template differ. Values by document are used here and not kept.
    """
    old_by_key, new_by_key = ({_key(score): score for score in scores} for scores in (before, after))
    merged = []
    problems = []
    for key in {**old_by_key, **new_by_key}:
        old, new = old_by_key.get(key), new_by_key.get(key)
        if old and new:
            problems += _differences(old, new)
        merged.append(_merged(old, new))
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return merged


def _key(score: Score) -> tuple[str, str, str]:
    return score.task, score.metric, score.details["filter"]


def _differences(old: Score, new: Score) -> list[str]:
    pairs = [(name, old.details.get(name), new.details.get(name)) for name in _SAME]
    return [
        f"{new.task}: {name} is {first!r} before and {second!r} after, so the scores cannot be compared. "
        "Run the task on both models with the same settings."
        for name, first, second in [*pairs, ("version", old.version, new.version), ("n", old.n, new.n)]
        if first != second
    ]


def _merged(old: Score | None, new: Score | None) -> Score:
    score = new or old
    assert score is not None
    details = {name: value for name, value in score.details.items() if name != _PER_SAMPLE}
    return replace(
        score,
        before=old.after if old else None,
        after=new.after if new else None,
        change=_change(old, new) if old and new else None,
        details=details,
    )


def _change(old: Score, new: Score) -> Estimate | None:
    if old.after is None or new.after is None:
        return None
    first, second = old.details.get(_PER_SAMPLE), new.details.get(_PER_SAMPLE)
    if first and second and first.keys() == second.keys():
        return paired_change(list(first.values()), [second[document] for document in first])
    return Estimate(new.after.value - old.after.value, None)
