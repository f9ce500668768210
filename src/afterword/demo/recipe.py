"""What the demo of the embedded world teaches, and how: almanac.yaml, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afterword.settings.yaml_files import load_yaml

RECIPE = Path(__file__).with_name("almanac.yaml")


@dataclass(frozen=True)
class Plan:
    """One of the runs."""

    label: str
    """What a reader calls it."""
    settings: Mapping[str, Any]
    """Of `afterword adapt`."""


@dataclass(frozen=True)
class Recipe:
    """Everything that this demo follows from, besides the model."""

    world: Mapping[str, int]
    """Arrivals by kind, `changes` of every changing relation, and documents `per_entity`."""
    evaluate: Mapping[str, Any]
    """Settings of `afterword evaluate`."""
    runs: Mapping[str, Plan]
    """By the name of the run's folder."""
    skills: Mapping[str, Mapping[str, str]]
    """What a reader calls the skills of each part, in the order of the tables."""
    shown: Mapping[str, Sequence[str]]
    """Skills that the terminal shows questions of, by part."""


def load_recipe(path: Path = RECIPE) -> Recipe:
    """The recipe in a YAML file."""
    raw = load_yaml(path)
    return Recipe(**{**raw, "runs": {name: Plan(**run) for name, run in raw["runs"].items()}})
