"""Benchmarks of skills, handed over to the lm-evaluation-harness.

The one rule: the harness prompts, measures and averages; here is only which model and which tasks, and the
translation of what it found into scores that say how it was found.
"""

import math
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from afterword.errors import ConfigError
from afterword.evaluation.intervals import paired_change
from afterword.evaluation.measure import VERSIONS, Inputs, Measured, Models
from afterword.evaluation.task_cache import kept_scores
from afterword.evaluation.task_loading import Asking, LoadedTask, LoadedTasks, leaves_of
from afterword.evaluation.task_model import THINK_END, by_vllm, in_memory
from afterword.models import free_memory
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Estimate, Score

PER_ITEM = "values"
"""What each item's value was, before and after, in the details of a score that is their mean."""
COUNTED = "counted"
"""In the details of the one score of a task that retention is counted by."""
PER_SAMPLE = "per_sample"
"""The values of each item of one side, in the details of a score that is not merged yet."""
_NO_FORKS = "DISABLE_MULTIPROC"
"""What the harness asks the environment."""
_DRAWS = 1000
"""Of the bootstrap that the harness makes its standard errors by, where it has no formula."""


def benchmarks(models: Models, inputs: Inputs) -> Measured:
    """The measure of the harness's tasks, before and after."""
    settings, loaded = inputs.settings, inputs.tasks
    assert loaded, "what it needs"
    how, name = {"backend": settings.tasks_backend}, settings.reference or inputs.model
    of_reference = partial(_scores_of, "before", name, models, loaded, settings)
    before = kept_scores(settings.suite_cache, models.reference, models.tokenizer, loaded, how, of_reference)
    # A model alone stands where the adapted one would.
    sides = ([], before)
    if models.are_two:
        sides = (before, _scores_of("after", inputs.model, models, loaded, settings))
    return Measured(scores=compare_tasks(*sides), notes=_notes(loaded))


def _scores_of(side: str, name: str, models: Models, loaded: LoadedTasks, settings: EvaluateSettings) -> list[Score]:
    if settings.tasks_backend == "vllm":
        return _by_vllm(side, name, models, loaded, settings)
    how: dict[str, Any] = {"batch_size": settings.tasks_batch_size, "batch_tokens": models.micro_batch_tokens}
    harness = in_memory(models.of_side(side), models.tokenizer, **how)
    return run_tasks(harness, models.tokenizer, loaded)


def asking_of(settings: EvaluateSettings) -> Asking:
    """How tasks are asked, by the settings of an evaluation."""
    return Asking(
        settings.apply_chat_template,
        settings.enable_thinking,
        settings.max_gen_toks,
        settings.gen_kwargs or {},
        limit=settings.tasks_limit,
        split=settings.split,
        seed=settings.seed,
        runs_code=settings.confirm_run_unsafe_code,
    )


def run_tasks(harness: Any, tokenizer: Any, loaded: LoadedTasks) -> list[Score]:
    """The tasks' scores of one model, in `after`, a score for each metric and filter.

    `harness` is the model as the harness asks it. Few-shot examples are turns where the chat template is applied.
    Intervals are value ± 1.96 standard errors. Sets the global random seeds, as the harness does. ConfigError as of
    `rounds_of`.
    """
    scores = list[Score]()
    for how, tasks in rounds_of(tokenizer, loaded):
        scores += _round_scores(harness, how, tasks, loaded)
    return scores


@dataclass(frozen=True)
class How:
    """What tasks that run together share."""

    apply_chat_template: bool
    enable_thinking: bool | None


def rounds_of(tokenizer: Any, loaded: LoadedTasks) -> list[tuple[How, list[LoadedTask]]]:
    """Tasks that are asked in the same way, together. ConfigError where the tokenizer's chat template cannot."""
    rounds: dict[How, list[LoadedTask]] = {}
    template = str(tokenizer.chat_template or "")
    asking = loaded.asking
    if asking.enable_thinking is not None and "enable_thinking" not in template:
        problem = "enable_thinking: the chat template of this model does not read it"
        raise ConfigError(f"{problem}. Leave it out, or give a model that can think.")
    for task in loaded.tasks:
        chat = _first(asking.apply_chat_template, task.asked.apply_chat_template, bool(template))
        if chat and not template:
            problem = f"apply_chat_template: {task.asked.name!r} is to be asked through it, and this model has none"
            raise ConfigError(f"{problem}. Give --apply-chat-template false.")
        thinking = _first(asking.enable_thinking, task.asked.enable_thinking)
        # Likelihoods are read right behind the prompt, where a model that thinks would begin to.
        thinking = None if thinking and not task.only_writes else thinking
        _set_generation(task, asking, thinks=chat and "enable_thinking" in template and thinking is not False)
        rounds.setdefault(How(bool(chat), thinking if chat else None), []).append(task)
    return list(rounds.items())


def _first(*values: Any) -> Any:
    """The first that was said."""
    return next((value for value in values if value is not None), None)


def _set_generation(task: LoadedTask, asking: Asking, *, thinks: bool) -> None:
    """How text is drawn: as the task has it, over it the preset, over both what a person set."""
    asked = task.asked
    tokens = _first(asking.max_gen_toks, asked.max_gen_toks)
    told = {**asked.gen_kwargs, **(asked.gen_kwargs_thinking if thinks else {})}
    told |= {**({"max_gen_toks": tokens} if tokens else {}), **asking.gen_kwargs}
    for leaf in leaves_of(task.objects):
        if told and leaf.OUTPUT_TYPE == "generate_until":
            leaf.set_config(key="generation_kwargs", value=told, update=True)


@contextmanager
def _without_forks() -> Generator[None]:
    """The harness draws for standard errors in forked processes, which hang now and then beside threads of torch."""
    before = os.environ.get(_NO_FORKS)
    os.environ[_NO_FORKS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_NO_FORKS)
        if before is not None:
            os.environ[_NO_FORKS] = before


def _round_scores(harness: Any, how: How, tasks: Sequence[LoadedTask], loaded: LoadedTasks) -> list[Score]:
    import lm_eval

    _set_thinking(harness, how.enable_thinking)
    items = {name: list(places) for task in tasks for name, places in task.items.items()}
    simple_evaluate: Any = lm_eval.simple_evaluate  # Decorated, and without types.
    with _without_forks():
        results = simple_evaluate(
            model=harness,
            tasks=[each for task in tasks for each in task.objects],
            task_manager=loaded.manager,
            samples=items,
            apply_chat_template=how.apply_chat_template,
            fewshot_as_multiturn=how.apply_chat_template,
            bootstrap_iters=_DRAWS,
            log_samples=True,
            confirm_run_unsafe_code=True,
        )
    about = {"limit": loaded.asking.limit, "split": loaded.asking.split, "seed": loaded.asking.seed}
    about |= {"fewshot_as_multiturn": how.apply_chat_template, "lm_eval_version": lm_eval.__version__}
    about |= {"chat_template_applied": how.apply_chat_template, "enable_thinking": how.enable_thinking}
    about |= {"backend": type(harness).__name__}
    counted = dict(pair for task in tasks for pair in _counted(task, results))
    rows = [(task, key, value) for task, row in results["results"].items() for key, value in row.items() if "," in key]
    found = [(task, key) for task, key, value in rows if "_stderr," not in key and _is_number(value)]
    return [_score(results, about, counted, *place) for place in found]


def _set_thinking(harness: Any, thinking: bool | None) -> None:
    """Tell the model's chat template; the harness itself is told when it is made, and runs more than one round here."""
    harness.enable_thinking = thinking
    if hasattr(harness, "hf_chat_template"):
        return  # vLLM's says it by itself.
    harness.chat_template_args = {} if thinking is None else {"enable_thinking": thinking}
    ends = harness.tokenizer.convert_tokens_to_ids(THINK_END)
    has_end = ends is not None and ends != harness.tokenizer.unk_token_id
    harness.think_end_token = THINK_END if has_end and thinking is not False else None


def _counted(task: LoadedTask, results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The task, or members of a group, and the metric with its filter that retention is counted by."""
    names = [task.asked.name] if task.asked.name in results["results"] else list(task.items)
    while names:
        name = names.pop(0)
        if key := _counted_key(name, task.asked.metric, results):
            yield name, key
        else:
            names += task.groups.get(name, ())


def _counted_key(name: str, metric: str | None, results: Mapping[str, Any]) -> str | None:
    """The first metric of which more is better and that has a value from 0 to 1 for each item; or the one given."""
    row, better = results["results"].get(name, {}), results["higher_is_better"].get(name, {})
    for key, value in row.items():
        called, _, _ = key.partition(",")
        wanted = called == metric if metric else better.get(called)
        if wanted and "," in key and "_stderr," not in key and _is_number(value):
            values = _per_sample(_rows(results, name, key), called, float(value))
            if values and all(0 <= each <= 1 for parts in values.values() for each in parts):
                return key
    return None


def _score(
    results: Mapping[str, Any], how: Mapping[str, Any], counted: Mapping[str, str], task: str, key: str
) -> Score:
    metric, _, filter_name = key.partition(",")
    row = results["results"][task]
    value, stderr = float(row[key]), row.get(f"{metric}_stderr,{filter_name}")
    # The harness writes "N/A" where it has no formula.
    interval = (value - 1.96 * stderr, value + 1.96 * stderr) if _is_number(stderr) else None
    measured = {"task_version": results["versions"].get(task), "num_fewshot": results["n-shot"].get(task)}
    written = results["configs"].get(task, {}).get("generation_kwargs")
    measured |= {"generation_kwargs": dict(written)} if written else {}
    values = _per_sample(_rows(results, task, key), metric, value)
    details = {**how, **measured, "filter": filter_name, COUNTED: counted.get(task) == key, PER_SAMPLE: values}
    score = Score(task=f"tasks/{task}", metric=metric, version=VERSIONS["tasks"], n=_count_documents(results, task))
    better = {True: "higher", False: "lower"}.get(results["higher_is_better"].get(task, {}).get(metric))
    better = "higher" if details[COUNTED] else better
    return replace(score, after=Estimate(value, interval), better=better, details=details)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _count_documents(results: Mapping[str, Any], task: str) -> int:
    if task in results["n-samples"]:
        return results["n-samples"][task]["effective"]
    return sum(_count_documents(results, part) for part in results.get("group_subtasks", {}).get(task, ()))


def _rows(results: Mapping[str, Any], task: str, key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """What was found of each item, by its name; of a group's members, with the member's."""
    filter_name = key.partition(",")[2]
    if task in results.get("samples", {}):
        rows = [row for row in results["samples"][task] if row.get("filter") == filter_name]
        return [(str(row["doc_id"]), row) for row in rows]
    parts = results.get("group_subtasks", {}).get(task, ())
    inner = [(part, _rows(results, part, key)) for part in parts]
    return [(item if "/" in item else f"{part}/{item}", row) for part, rows in inner for item, row in rows]


def _per_sample(
    rows: Sequence[tuple[str, Mapping[str, Any]]], metric: str, value: float
) -> dict[str, list[float]] | None:
    """Values by item, of which an item may have several; None where the score is not their mean, as of a perplexity."""
    found = {item: _values(row.get(metric)) for item, row in rows}
    every = [each for values in found.values() for each in values]
    if not found or not all(found.values()) or not math.isclose(sum(every) / len(every), value, abs_tol=1e-9):
        return None
    return found


def _values(found: Any) -> list[float]:
    """One value, or as many as the instructions that an item gave; none where there are no numbers."""
    parts: Sequence[Any] = found if isinstance(found, list | tuple) else [found]
    return (
        [float(each) for each in parts]
        if all(isinstance(each, int | float | np.number | np.bool_) for each in parts)
        else []
    )


def compare_tasks(before: Sequence[Score], after: Sequence[Score]) -> list[Score]:
    """One score for each metric from two runs of the same tasks, before and after adaptation.

    The interval of the change is paired over items; there is none where the harness gives no value for each item.
    What only one of the runs measured stays one-sided, and nothing is compared across chat templates. The values of
    items are kept, in `details`.
    """
    old, new = ({(s.task, s.metric, s.details["filter"]): s for s in scores} for scores in (before, after))
    return [_merged(old.get(key), new.get(key)) for key in {**old, **new}]


def _merged(old: Score | None, new: Score | None) -> Score:
    score: Any = new or old
    details = {name: value for name, value in score.details.items() if name != PER_SAMPLE}
    change = _change(old, new) if old and new else None
    values = {side: each.details[PER_SAMPLE] for side, each in (("before", old), ("after", new)) if each}
    if all(values.values()):
        items = list(next(iter(values.values())))
        alike = all(list(own) == items for own in values.values())
        details |= {PER_ITEM: {"items": items, **{s: list(own.values()) for s, own in values.items()}}} if alike else {}
    return replace(score, before=old and old.after, after=new and new.after, change=change, details=details)


def _change(old: Score, new: Score) -> Estimate | None:
    how = [{**score.details, PER_SAMPLE: None, COUNTED: None} for score in (old, new)]
    if how[0] != how[1] or old.after is None or new.after is None:
        return None
    first, second = old.details[PER_SAMPLE], new.details[PER_SAMPLE]
    if first and second and first.keys() == second.keys() and _sizes(first) == _sizes(second):
        units = [item for item, values in first.items() for _ in values]
        sides = [[each for item in first for each in side[item]] for side in (first, second)]
        return paired_change(*sides, units=units)
    return Estimate(new.after.value - old.after.value, None)


def _sizes(values: Mapping[str, Sequence[float]]) -> dict[str, int]:
    return {item: len(own) for item, own in values.items()}


def _by_vllm(side: str, name: str, models: Models, loaded: LoadedTasks, settings: EvaluateSettings) -> list[Score]:
    """The scores of one model by vLLM, which wants the memory for itself and loads the model from its folder."""
    there = [side] if models.in_turns else models.sides
    both = [models.of_side(each) for each in there]
    device = both[0].device
    for each in both:
        each.to("cpu")
    free_memory()
    harness = by_vllm(name, enable_thinking=settings.enable_thinking)
    try:
        return run_tasks(harness, models.tokenizer, loaded)
    finally:
        del harness
        free_memory()
        for each in both:
            each.to(device)


def _notes(loaded: LoadedTasks) -> list[str]:
    """Which tasks do not think where thinking was asked for."""
    reads = [task.asked.name for task in loaded.tasks if loaded.asking.enable_thinking and not task.only_writes]
    said = "Tasks whose likelihoods are read, before which nothing is thought"
    return [f"{said}: {', '.join(reads)}."] if reads else []
