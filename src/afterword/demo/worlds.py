"""The worlds that a demo can be told in: worlds.yaml, and who writes the lessons of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from afterword.demo.almanac_lessons import write_almanac
from afterword.demo.ferry_lessons import write_ferry
from afterword.demo.lessons import Lessons, Recipe, load_recipe
from afterword.errors import ConfigError, nearest
from afterword.settings.yaml_files import load_yaml

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class World:
    """All in which one demo differs from another, but for its lessons and its recipe; see worlds.yaml."""

    model: str
    about: str
    story: str
    closing: str
    again: str
    skills: Mapping[str, str]


WORLDS = TypeAdapter(dict[str, World]).validate_python(load_yaml(_HERE / "worlds.yaml"))
WRITERS: Mapping[str, Callable[[Path, Mapping[str, int]], Lessons]] = {"ferry": write_ferry, "almanac": write_almanac}
"""Each writes a world's lessons into a new folder, in the sizes of its recipe."""


def recipe_of(world: str) -> Recipe:
    """How a world's documents are taught and asked for."""
    return load_recipe(_HERE / world / "recipe.yaml")


def check_world(name: str) -> None:
    """ConfigError where there is no world of this name."""
    if name not in WORLDS:
        raise ConfigError(f"world: there is no world {name!r}. {nearest(name, WORLDS)}There are: {', '.join(WORLDS)}.")
