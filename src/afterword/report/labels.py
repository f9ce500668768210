"""The tables of templates/: what tasks and metrics are called, and what each file of a run must hold."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_table(name: str) -> Mapping[str, Any]:
    """A YAML file of templates/, read once."""
    import yaml

    return yaml.safe_load((files("afterword.report") / "templates" / name).read_text(encoding="utf-8"))


def task_label(task: str) -> str:
    """The task in words; a benchmark (`tasks/…`) by its own name."""
    return load_table("words.yaml")["tasks"].get(task, task.removeprefix("tasks/"))


def metric_label(metric: str, details: Mapping[str, Any]) -> str:
    """The metric in words, or its raw name where it is not one of ours."""
    label = load_table("words.yaml")["metrics"].get(metric, metric)
    # lm-eval gives one metric several times, by how the answer is cut out of the text; "none" is the usual way.
    rule = details.get("filter") or "none"
    return label if rule == "none" else f"{label}, {rule}"


def unit(metric: str) -> str:
    """The unit that the name's suffix stands for; empty where it carries none."""
    return next((word for suffix, word in load_table("words.yaml")["units"].items() if metric.endswith(suffix)), "")
