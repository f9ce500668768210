"""Retention by benchmark tasks, where a suite has it by skills: one score of each task for dev, and one for test."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from afterword.errors import ConfigError
from afterword.evaluation.intervals import before_and_after
from afterword.evaluation.task_items import is_dev
from afterword.evaluation.tasks import COUNTED, PER_ITEM
from afterword.types import Score

PREFIX = "tasks/"


def retention_by_split(scores: Sequence[Score]) -> list[Score]:
    """Of every task the metric that counts, as `dev/retention/tasks/NAME` and `test/retention/tasks/NAME`.

    ConfigError where a task that was measured has no such metric: what is no share of its items is no retention.
    """
    tasks = [score for score in scores if score.task.startswith(PREFIX)]
    counted = [score for score in tasks if score.details.get(COUNTED) and PER_ITEM in score.details]
    if tasks and not counted:
        names = ", ".join(dict.fromkeys(score.task.removeprefix(PREFIX) for score in tasks))
        problem = f"tasks: {names} have no metric with a value from 0 to 1 for each item"
        raise ConfigError(f"{problem}, so that retention can be counted. Give tasks that count right answers.")
    return [part for score in counted for part in _parts(score)]


def _parts(score: Score) -> Iterator[Score]:
    """The score on dev, and on test, as far as it has items there."""
    values, name = score.details[PER_ITEM], score.task.removeprefix(PREFIX)
    for split in ("dev", "test"):
        places = [i for i, item in enumerate(values["items"]) if _split_of(name, item) == split]
        if not places:
            continue
        units = [values["items"][i] for i in places for _ in values["after"][i]]
        sides = {
            side: list(chain.from_iterable(values[side][i] for i in places)) if side in values else None
            for side in ("before", "after")
        }
        measured = before_and_after(sides["before"], sides["after"], units=units)
        yield replace(score, task=f"{split}/retention/{score.task}", n=len(places), details={}, **measured)


def _split_of(task: str, item: str) -> str:
    """Of an item by its place in its task, which for a group's stands before it."""
    member, _, place = item.rpartition("/")
    return "dev" if is_dev(member or task, int(place)) else "test"
