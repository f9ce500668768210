"""Presets: lists of benchmark tasks under one name, each task with the metric that counts and how it is asked.

They are YAML files of the package, and a value of the setting `tasks`. The one rule: a preset says nothing that could
not be said by settings, and what a person sets wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from afterword.errors import ConfigError, nearest
from afterword.storage.parsing import parse_yaml

_PREFIX = "retention-"
"""Names of presets begin so, and of the harness's tasks none does."""


@dataclass(frozen=True)
class AskedTask:
    """A task that is asked for, by a preset or by its name alone."""

    name: str
    """A name that the harness knows, a task file, or a folder of them."""
    metric: str | None = None
    """The metric that retention is counted by; None: the task's first that has a value for each item."""
    apply_chat_template: bool | None = None
    """None: where the tokenizer has one."""
    enable_thinking: bool | None = None
    """None: as the chat template has it by itself."""
    max_gen_toks: int | None = None
    """Most tokens that are written; None: as the task has it."""
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How text is drawn, over what the task says."""
    gen_kwargs_thinking: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The same, of a model that thinks before it answers."""
    in_pick: bool = True
    """Whether a pick looks at how much of it is lost."""


@cache
def presets() -> dict[str, str]:
    """What each preset is, by its name."""
    return {name: str(raw["about"]) for name, raw in _raw().items()}


def asked_tasks(names: Sequence[str], tasks_path: str | None) -> list[AskedTask]:
    """What was asked for, with presets in the place of their names; each task once, as it is asked for first.

    ConfigError for a preset that there is not.
    """
    found: dict[str, AskedTask] = {}
    for name in names:
        if name.startswith(_PREFIX) and name not in _raw() and not Path(name).exists():
            # Looking through the harness's own thousands of files would take many seconds.
            raise ConfigError(f"tasks: there is no preset {name!r}. {nearest(name, _raw())}Known: {', '.join(_raw())}.")
        for task in _of_preset(name, tasks_path) if name in _raw() else [AskedTask(name)]:
            found.setdefault(task.name, task)
    return list(found.values())


def needs_folder(name: str) -> bool:
    """Whether a preset takes its tasks from `tasks_path`.

    >>> needs_folder("retention-offline"), needs_folder("retention-small"), needs_folder("hellaswag")
    (True, False, False)
    """
    return name in _raw() and _raw()[name]["tasks"] == "tasks_path"


def outside_pick(names: Sequence[str]) -> set[str]:
    """The tasks of presets that a pick does not look at."""
    return {task.name for task in asked_tasks(names, "") if not task.in_pick}


def _of_preset(name: str, tasks_path: str | None) -> list[AskedTask]:
    if needs_folder(name):
        return [AskedTask(tasks_path)] if tasks_path else []
    shared = {key: value for key, value in _raw()[name].items() if key not in ("about", "tasks")}
    return [AskedTask(task, **{**shared, **own}) for task, own in _raw()[name]["tasks"].items()]


@cache
def _raw() -> dict[str, dict[str, Any]]:
    folder = files("afterword.evaluation") / "presets"
    there = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {Path(name).stem: parse_yaml((folder / name).read_text(encoding="utf-8")) for name in there}
