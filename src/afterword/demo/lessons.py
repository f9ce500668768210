"""What every world teaches and asks in a demo, and how: its lessons, and its recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from afterword.almanac.files import suite_lines
from afterword.evaluation.suites import Suite
from afterword.report.demo_page import Readable
from afterword.settings.yaml_files import load_yaml
from afterword.storage.atomic import replace_file

OPEN_BOOK = "open_book"
"""The skill of questions with the document before them."""
BRIEFLY = "Answer briefly."


@dataclass(frozen=True, slots=True)
class Told:
    """What a page says of a question about the documents."""

    options: tuple[str, ...]
    """The answers that it is a choice of, in the order in which they are shown."""
    documents: tuple[int, ...]
    """Numbers of those that tell it."""


@dataclass(frozen=True)
class Lessons:
    """What a world has written into its folder."""

    documents: Path
    """What is taught, as `afterword adapt` reads it."""
    count: int
    """How many documents that are."""
    suite: Suite
    """What is asked before and after. Every question about the documents is a choice."""
    open_book: Suite
    """The same questions, with a document that tells the answer before each."""
    told: Mapping[str, Told]
    """By the id of a question about the documents."""
    to_read: tuple[Readable, ...]
    """Documents that the page shows, by their numbers."""

    def path(self, name: str) -> Path:
        """Where the suite (`suite`) and the questions with their documents (`open_book`) are."""
        return self.documents.parent / f"{name}.jsonl"

    def write_suites(self) -> None:
        """Write both beside the documents."""
        for name, suite in (("suite", self.suite), ("open_book", self.open_book)):
            replace_file(self.path(name), suite_lines(suite))


@dataclass(frozen=True)
class Recipe:
    """How the documents are taught and asked for."""

    label: str
    """What a reader calls the way of teaching."""
    adapt: Mapping[str, Any]
    """Settings of `afterword adapt`."""
    evaluate: Mapping[str, Any]
    """Settings of `afterword evaluate`, the same before and after."""
    open_book: Mapping[str, Any]
    """The same for the questions with the document before them."""
    shown: Mapping[str, int]
    """How many answers are shown, by part."""
    world: Mapping[str, int] = field(default_factory=dict[str, int])
    """How much happens, where the world is made by a program."""


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file."""
    return TypeAdapter(Recipe).validate_python(load_yaml(path))
