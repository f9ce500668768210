"""The suite `everyday`: short questions and instructions that an instruct model answers before it reads anything new.

For whoever has documents and a model but no suite: `evaluate --suite everyday` says in writing what a run lost, and
`adapt --suite everyday --forgetting-budget 5` holds a run to it. It is all retention. The one rule: an item is never
of a subject or a time that documents are likely to change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from afterword.evaluation.suites import SPLITS, Item, Suite
from afterword.settings.yaml_files import load_yaml

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A question or an instruction as the file has it."""

    prompt: str
    answer: str
    also: tuple[str, ...] = ()
    """Other right answers."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """Where saying one of the answers is not enough."""


def everyday_suite() -> Suite:
    """The suite, made from its file."""
    by_skill = TypeAdapter(dict[str, list[_Entry]]).validate_python(load_yaml(FILE))
    items = (item for skill, entries in by_skill.items() for item in _items_of(skill, entries))
    return Suite(tuple(items), name="everyday")


def everyday_prompts(count: int) -> list[str]:
    """So many prompts of its dev split, or all, every skill by its share."""
    prompts = [item.prompt for item in everyday_suite().items if item.split == "dev"]
    places = np.linspace(0, len(prompts) - 1, min(count, len(prompts)))
    return [prompts[place] for place in places.round().astype(int)]


def _items_of(skill: str, entries: Sequence[_Entry]) -> list[Item]:
    """Those of a skill take turns: one is asked on dev, the next on test."""
    return [
        Item(
            id=f"{skill}/{place}",
            part="retention",
            skill=skill,
            split=SPLITS[place % 2],
            prompt=entry.prompt,
            answer=entry.answer,
            checks=entry.checks or ({"kind": "contains", "values": [entry.answer, *entry.also]},),
        )
        for place, entry in enumerate(entries)
    ]
