"""Scores of benchmark tasks of the model before, kept for other evaluations of the same model.

The one rule: what is kept is used where the same weights were asked the same items in the same way; else it is made
again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afterword.evaluation.measure import VERSIONS
from afterword.evaluation.task_loading import LoadedTasks, leaves_of
from afterword.models import causal_lm, content_sha256, replace_file
from afterword.storage.hashes import json_sha256
from afterword.storage.parsing import parse_json
from afterword.types import Estimate, Score


def kept_scores(
    folder: str | None,
    model: Any,
    tokenizer: Any,
    tasks: LoadedTasks,
    how: Mapping[str, Any],
    make: Callable[[], list[Score]],
) -> list[Score]:
    """The scores of a model, from the folder where it has them; `how` is what else they follow from."""
    if folder is None:
        return make()
    file = Path(folder) / f"tasks-{_key(model, tokenizer, tasks, how)}.json"
    try:
        kept = parse_json(file.read_text(encoding="utf-8"))
        if kept["sha256"] == json_sha256(kept["scores"]):
            return [_score(row) for row in kept["scores"]]
    except (OSError, ValueError, TypeError, KeyError):
        pass  # Not there, or not readable: it is made again.
    scores = make()
    rows = parse_json(json.dumps([asdict(score) for score in scores]))
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, json.dumps({"sha256": json_sha256(rows), "scores": rows}, ensure_ascii=False))
    return scores


def _key(model: Any, tokenizer: Any, tasks: LoadedTasks, how: Mapping[str, Any]) -> str:
    import lm_eval

    dtype = str(next(causal_lm(model).parameters()).dtype)
    asked = [{**asdict(task.asked), "items": dict(task.items)} for task in tasks.tasks]
    told = [_contents(leaf, task.items[leaf.task_name]) for task in tasks.tasks for leaf in leaves_of(task.objects)]
    about = [VERSIONS["tasks"], lm_eval.__version__, content_sha256(model), dtype, str(tokenizer.chat_template)]
    return json_sha256([*about, asked, told, {**asdict(tasks.asking), "runs_code": None}, dict(how)])


def _contents(leaf: Any, items: Any) -> list[str]:
    """What a task says of itself, but for where it lies, and its items."""
    config = {name: value for name, value in leaf.dump_config().items() if name not in ("metadata", "dataset_kwargs")}
    # Functions in it are told by their code where it can be had, which the harness does.
    return [
        json.dumps(config, default=str, sort_keys=True),
        *(json.dumps(leaf.eval_docs[i], default=str) for i in items),
    ]


def _score(row: Mapping[str, Any]) -> Score:
    after = row["after"]
    interval = after["interval_95"]
    estimate = Estimate(after["value"], (interval[0], interval[1]) if interval else None)
    return Score(**{**row, "after": estimate})
