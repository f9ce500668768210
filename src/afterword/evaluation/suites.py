"""Suites: items with exact checks, from a file or from Python, and the draw of those that are asked.

The one rule: a suite that was read can be asked. Every item has all its fields, its checks are known, and its
own answer passes them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterword import plugins
from afterword.errors import ConfigError, DataError, nearest
from afterword.evaluation.checks import passes, problem_of
from afterword.evaluation.right_answers import says
from afterword.storage.json_lines import read_rows

PARTS = ("learning", "retention")
SPLITS = ("dev", "test")
_RULE = (
    'Each line is an item: {"id": "…", "part": "learning" or "retention", "skill": "…", "split": "dev" or "test", '
    '"prompt": "…", "answer": "…", "checks": [{"kind": "…", …}]}, and "choices": ["…"], "gone": "…" and "unit": "…" '
    "where wanted."
)
_HEADER = (
    'The first line may be {"suite": {"name": "…", "version": 1, "refusals": ["I do not know."], "texts": ["…"]}}.'
)


@dataclass(frozen=True, slots=True)
class Item:
    """A user's turn, and what makes an answer to it right."""

    id: str
    part: str
    """`learning`: what the documents say; `retention`: what the model could do before."""
    skill: str
    """Any word: direct, reading, arithmetic, … Scores are by split, part and skill."""
    split: str
    """`dev`, to choose by, or `test`, to report."""
    prompt: str
    answer: str
    """A reference response that passes every check."""
    checks: tuple[Mapping[str, Any], ...]
    """All must hold of an answer; see evaluation/checks.py."""
    choices: tuple[str, ...] = ()
    """Wrong alternatives, for choice by likelihood against `answer`. None: not measured."""
    gone: str | None = None
    """What must no longer be said: the old value of a fact that changed."""
    unit: str | None = None
    """What it asks about, as entity and relation: items with the same unit are not independent. None: itself alone."""

    @property
    def group(self) -> tuple[str, str, str]:
        """What it is scored with: split, part and skill."""
        return self.split, self.part, self.skill


@dataclass(frozen=True, slots=True)
class Suite:
    """Items, what a refusal to answer looks like, and texts to measure drift on."""

    items: tuple[Item, ...]
    refusals: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    name: str = "suite"
    version: int = 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the items, in their order, and the version; the same for a suite from a file and from Python.

        Neither the first version nor a unit that is not given is in it, so that older suites stay what they were.
        """
        rows = [{field.name: getattr(item, field.name) for field in fields(Item)} for item in self.items]
        rows = [{**row, "checks": [dict(check) for check in row["checks"]]} for row in rows]
        items = [{name: value for name, value in row.items() if (name, value) != ("unit", None)} for row in rows]
        return _sha256(items if self.version == 1 else {"version": self.version, "items": items})


_REGISTERED: dict[str, Callable[[], Suite]] = {}


def register_suite(name: str, loader: Callable[[], Suite]) -> None:
    """Let `afterword evaluate --suite NAME` find a suite that Python code of this process makes or holds.

    A package gives one to every process by an entry point of the group `afterword.suites`.
    """
    _REGISTERED[name] = loader


def find_suite(name: str) -> Suite:
    """A suite by its name, or the suite in a file; several, with commas between, as one.

    ConfigError for what is none, and for one that is named twice. DataError where two have an item of the same id.
    """
    if "," not in name or Path(name).exists():
        return _find_one(name)
    names = [each.strip() for each in name.split(",")]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise ConfigError(f"suite: {', '.join(twice)} is named more than once in {name!r}. Name every suite once.")
    return _joined({each: _find_one(each) for each in names})


def _find_one(name: str) -> Suite:
    packaged = plugins.added("suites")
    if name in _REGISTERED or name in packaged:
        make = _REGISTERED.get(name) or plugins.load("suites", name)
        return replace(make(), name=name)
    if Path(name).exists() or name.endswith((".jsonl", ".jsonl.gz")):
        return load_suite(name)
    known = sorted({*_REGISTERED, *packaged})
    listed = nearest(name, known) or f"There are: {', '.join(known)}. "
    raise ConfigError(f"suite: there is no suite {name!r}. {listed}Or give a .jsonl file.")


def _joined(suites: Mapping[str, Suite]) -> Suite:
    """Suites asked as one. Its version goes up with that of any, and is the first where all are at their first."""
    first: dict[str, str] = {}
    for name, suite in suites.items():
        for item in suite.items:
            if (other := first.setdefault(item.id, name)) != name:
                rule = "Suites that are asked together need ids of their own"
                raise DataError(f"suite: {other} and {name} both have an item with the id {item.id!r}. {rule}.")
    return Suite(
        items=tuple(item for suite in suites.values() for item in suite.items),
        refusals=tuple(dict.fromkeys(text for suite in suites.values() for text in suite.refusals)),
        texts=tuple(text for suite in suites.values() for text in suite.texts),
        name=",".join(suite.name for suite in suites.values()),
        version=1 + sum(suite.version - 1 for suite in suites.values()),
    )


def load_suite(path: str | Path) -> Suite:
    """The suite in a .jsonl file, plain or .gz. DataError, with file and line, for what is not one."""
    path = Path(path)
    rows = read_rows(path, _RULE)
    if rows and "question" in rows[0][1]:
        raise DataError(f"{path}: holds questions, and a suite is wanted. Give them as questions. {_RULE}")
    about: dict[str, Any] = _about(*rows.pop(0)) if rows and "suite" in rows[0][1] else {}
    items = tuple(_item(where, row) for where, row in rows)
    first: dict[str, str] = {}
    for item, (where, _) in zip(items, rows, strict=True):
        if first.setdefault(item.id, where) != where:
            raise DataError(f'{where}: the "id" {item.id!r} is that of {first[item.id]}. Give every item its own.')
    if not items:
        raise DataError(f"{path}: holds no items. {_RULE}")
    about.setdefault("name", path.name)
    return Suite(items, **about)


def _about(where: str, row: dict[str, Any]) -> dict[str, Any]:
    about = row["suite"]
    rules = {"name": _is_text, "version": lambda value: type(value) is int, "refusals": _are_texts, "texts": _are_texts}
    if len(row) > 1 or not isinstance(about, dict):
        raise DataError(f'{where}: "suite" must be the only key, with an object. {_HEADER}')
    for name, value in about.items():
        if name not in rules:
            raise DataError(f'{where}: "suite" has no "{name}". {nearest(name, rules)}{_HEADER}')
        if not rules[name](value):
            raise DataError(f'{where}: "{name}" of "suite" must not be {value!r:.80}. {_HEADER}')
    return {name: tuple(value) if isinstance(value, list) else value for name, value in about.items()}


def _item(where: str, row: dict[str, Any]) -> Item:
    problem = next(iter(_problems(row)), None)
    if problem:
        raise DataError(f"{where}: {problem}. {_RULE}")
    given = {name: value for name, value in row.items() if value is not None}
    fitting: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in given.items()}
    item = Item(**fitting)
    failed = [check for check in item.checks if not passes(item.answer, check)]
    if failed:
        raise DataError(f'{where}: "answer" {item.answer!r} does not pass its own check {failed[0]}. Mend one of them.')
    if item.gone is not None and says(item.answer, item.gone):
        raise DataError(f'{where}: "answer" {item.answer!r} says what is "gone", {item.gone!r}. Mend one of them.')
    return item


def _problems(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields of an item, the first of them first."""
    known = [field.name for field in fields(Item)]
    found = [f'an item has no "{name}". {nearest(name, known)}'.rstrip(" ?.") for name in row if name not in known]
    texts = ("id", "skill", "prompt", "answer")
    found += [f'"{name}" is missing, empty or not text' for name in texts if not _is_text(row.get(name))]
    for name, allowed in {"part": PARTS, "split": SPLITS}.items():
        if row.get(name) not in allowed:
            found += [f'"{name}" must be {" or ".join(allowed)}, not {row.get(name)!r}']
    if "/" in str(row.get("skill")):
        found += ['"skill" must not have a slash in it']
    checks = row.get("checks")
    if not isinstance(checks, list) or not checks:
        found += ['"checks" is missing, or an empty list']
    else:
        found += [problem for problem in map(problem_of, checks) if problem]
    if not _are_texts(row.get("choices") or []) or row.get("answer") in (row.get("choices") or []):
        found += ['"choices" must be a list of texts, all of them other than "answer"']
    given = [name for name in ("gone", "unit") if row.get(name) is not None]
    return found + [f'"{name}" must be text, or left away' for name in given if not _is_text(row[name])]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def drawn_suite(suite: Suite, *, split: str = "both", max_items: int | None = None, seed: int = 0) -> Suite:
    """The suite with the items of a split, and at most so many of them: every skill keeps its share, by the seed."""
    items = [item for item in suite.items if split in ("both", item.split)]
    if not items:
        raise ConfigError(f"split: the suite {suite.name!r} has no item of the split {split!r}. Give another.")
    groups: dict[Any, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.group, []).append(i)
    # An item's place in its group, from 0 to 1: the first so many over all groups have every group's share.
    rng = np.random.default_rng(seed)
    places = {i: (n + 0.5) / len(group) for group in groups.values() for n, i in enumerate(rng.permutation(group))}
    kept = sorted(sorted(places, key=places.__getitem__)[:max_items])
    return replace(suite, items=tuple(items[i] for i in kept))
