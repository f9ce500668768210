"""The reference that is made of the code names all of it, and the pages name nothing that is not there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from afterword.evaluation.checks import KINDS
from afterword.evaluation.measures import MEASURES
from afterword.methods import METHODS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
WRITTEN = [
    REPOSITORY / "README.md",
    DOCS / "first_hour.md",
    *sorted(page for folder in ("concepts", "guides", "reference") for page in (DOCS / folder).glob("*.md")),
]
"""Pages that say how things are, not how they were."""


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> Any:
    return _module("generate_reference")


@pytest.fixture(scope="module")
def options(reference: Any) -> dict[str, set[str]]:
    """Every option of every command."""
    return {
        name: {it for each in command.params for it in (*each.opts, *each.secondary_opts) if it[0] == "-"} | {"--help"}
        for name, command in reference.commands().items()
    }


def test_every_setting_is_named_with_its_meaning(reference: Any) -> None:
    page, trees = reference.settings_page(), reference.settings_trees()
    assert {"AdaptSettings", "EvaluateSettings", "CompareSettings", "AlignSettings"} <= {it.__name__ for it in trees}
    sections = page.split("\n## ")[1:]
    assert len(sections) == len(trees)
    for section, tree in zip(sections, trees, strict=True):
        rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section, re.MULTILINE))
        assert sorted(rows) == sorted(tree.model_fields)
        assert all(meaning.strip() for meaning in rows.values())


def test_every_command_and_option_is_named(reference: Any, options: dict[str, set[str]]) -> None:
    page, settings = reference.commands_page(), reference.settings_page()
    for name, known in options.items():
        section = page.split(f"\n## afterword {name}\n")[1].split("\n## ")[0]
        for option in known - {"--help", "-h"}:
            setting = option.removeprefix("--no-").removeprefix("--").replace("-", "_")
            assert option in section or f"`{setting}`" in settings, f"{name} {option}"


def test_every_method_measure_and_check_is_named(reference: Any) -> None:
    sections = reference.measures_page().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(MEASURES)
    told = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    for section, measure in zip(sections, MEASURES.values(), strict=True):
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [metric.name for metric in measure.metrics]
        # Without a meaning of its own or a label, it is told by hand.
        assert all(it.meaning or it.label or f"| `{it.name}` |" in told for it in measure.metrics)
    assert re.findall(r"^## (\w+)$", reference.methods_page(), re.MULTILINE) == list(METHODS)
    assert re.findall(r"^\| `(\w+)` \|", reference.checks_page(), re.MULTILINE) == list(KINDS)


def test_the_table_of_views_and_objectives_is_the_registry(reference: Any) -> None:
    page = (DOCS / "concepts" / "views_and_objectives.md").read_text("utf-8")
    table = re.search(r"<!-- views and objectives -->\n(.*?)\n<!-- /views and objectives -->", page, re.DOTALL)[1]
    assert table.splitlines() == reference.views_and_objectives()


@pytest.mark.parametrize("page", WRITTEN, ids=[str(page.relative_to(REPOSITORY)) for page in WRITTEN])
def test_a_page_names_no_option_that_is_not_there(page: Path, options: dict[str, set[str]]) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^(?:\$ )?afterword (\w+)([^#\n]*)", text, re.MULTILINE)
    commands += re.findall(r"`afterword (\w+) ([^`\n]*)`", text)
    for name, rest in commands:
        assert name in options
        assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest)) - options[name] == set(), f"afterword {name}{rest}"
    named = {option for code in re.findall(r"`(--[^`\n]+)`", text) for option in re.findall(r"^--[a-z][\w-]*", code)}
    assert named - set().union(*options.values()) == set()


def test_the_picture_shows_what_the_study_says() -> None:
    drawing = _module("draw_learned_and_kept")
    assert drawing.PICTURE.read_text("utf-8") == drawing.drawn()
    study = (DOCS / "studies" / "forgetting_budget.md").read_text("utf-8")
    (before, after, reading), kept = drawing.LEARNED.values(), drawing.KEPT
    shown = ["{} % [{}, {}]".format(*each) for each in (before, after, reading, *kept.values())]
    assert f"Learned {shown[0]} → {shown[1]} (36 facts, 72 questions), {shown[2]} with the document" in study
    assert f"kept {shown[3]} → {shown[4]} (n = 30)" in study
