"""The demo of the embedded world, from nothing to its page: the functions of a person's own commands, in their order.

The one rule: everything that is shown was computed in this run, but for the recorded comparison, which says so.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from afterword import almanac, models, report
from afterword.almanac.after import CHOOSING
from afterword.almanac.files import write_files
from afterword.almanac.world import Fact, Size
from afterword.demo.almanac_story import Story
from afterword.demo.evidence import evidence_of
from afterword.demo.folder import about_demo, begin, command_line, record
from afterword.demo.recipe import Recipe, load_recipe
from afterword.evaluation import evaluate
from afterword.evaluation.intervals import before_and_after
from afterword.evaluation.questions import SIDES
from afterword.evaluation.suite_answers import is_correct
from afterword.evaluation.suites import Item, load_suite
from afterword.report.almanac_page import build_almanac, write_almanac
from afterword.settings.adapt import read_settings
from afterword.training import run_adaptation
from afterword.types import Score

STUDY = Path(str(almanac.__file__)).with_name("study")
"""Where the recorded comparison is shipped."""
EMBEDDED = "almanac-chat"


@dataclass(frozen=True)
class Place:
    """Where a demo happens and what it works on."""

    folder: Path
    model: str
    """As a person names it: a folder, a hub id, or an embedded model."""
    recipe: Recipe
    console: Console

    def world(self, name: str) -> Path:
        """A file of the world."""
        return self.folder / "world" / f"{name}.jsonl"


def run_almanac(
    folder: Path, *, model: str = EMBEDDED, recipe: Recipe | None = None, console: Console | None = None
) -> Path:
    """Tell the whole story into `folder`, which is made anew, and return the page."""
    started = time.perf_counter()
    place = Place(folder, model, recipe or load_recipe(), console or Console())
    story, parameters = Story(place.console), _parameters(place)
    begin(folder)
    counts = _write_world(place)
    story.opens(model, parameters, folder)
    command, answers = _measure(place, model, folder / "base")
    story.asks_the_base_model(command, answers, place.recipe)
    story.begins_to_teach(counts, place.recipe)
    runs = [_adapt_and_measure(place, name, story) for name in place.recipe.runs]
    seconds = time.perf_counter() - started
    about = about_demo(model, parameters, seconds) | {"command": command, "counts": counts}
    about |= {"world": dict(place.recipe.world), "skills": place.recipe.skills, "runs": runs}
    about |= {name: str(place.world(name)) for name in ("documents", "suite")}
    about |= {"evidence": _evidence(place), "totals": _totals(place)}
    record(folder, about)
    story.compares(build_almanac(folder, STUDY))
    page = write_almanac(folder, STUDY)
    story.ends(page, time.perf_counter() - started)
    return page


def _parameters(place: Place) -> int:
    return sum(parameter.numel() for parameter in models.load_model(place.model).parameters())


def _write_world(place: Place) -> Mapping[str, int]:
    world = dict(place.recipe.world)
    how = {"changes": world.pop("changes"), "per_entity": world.pop("per_entity"), "arrivals": Size(**world)}
    return write_files(place.folder / "world", CHOOSING, **how)


def _measure(place: Place, model: str, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The command that measures a model or run, and a row for every question."""
    suite, cache = str(place.world("suite")), str(place.folder / "cache")
    what = {"suite": suite, "suite_cache": cache, **place.recipe.evaluate}
    own = [] if Path(model) == folder else ["-o", str(folder)]
    command = command_line("evaluate", model, *own, **what)
    return command, evaluate(model, output_dir=folder, command=command, **what).answers


def _adapt_and_measure(place: Place, name: str, story: Story) -> dict[str, Any]:
    """One run, and what demo.json says of it."""
    plan, folder = place.recipe.runs[name], place.folder / name
    documents = str(place.world("documents"))
    command = command_line("adapt", place.model, documents, "-o", str(folder), **plan.settings)
    story.teaches(plan.label, command)
    given = {"model_name_or_path": place.model, "documents": [documents], "output_dir": str(folder)}
    run = run_adaptation(read_settings({**plan.settings, **given}), command=command, console=place.console)
    measured, _ = _measure(place, str(folder), folder)
    report.write_model_card(folder)
    report.write_report(folder)
    story.has_taught(run, measured)
    return {"name": name, "label": plan.label, "settings": list(plan.settings), "commands": [command, measured]}


def _evidence(place: Place) -> dict[str, Any]:
    facts = [Fact(**(row.get("new") or row)) for row in _rows(place.world("facts"))]
    return evidence_of(load_suite(place.world("suite")).items, facts, list(_rows(place.world("documents"))))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text(encoding="utf-8").splitlines())


def _totals(place: Place) -> dict[str, list[dict[str, Any]]]:
    """All questions of a part together, by run: scores of the same shape as those in scores.json."""
    suite = load_suite(place.world("suite"))
    items = {item.id: item for item in suite.items}
    answers = {name: _answers(place.folder / name) for name in place.recipe.runs}
    wanted = [(part, "All of these", "") for part in place.recipe.skills]
    wanted += [("learning", "All, if it may not refuse", "_unrefused")] if suite.refusals else []
    totals: dict[str, list[dict[str, Any]]] = {part: [] for part in place.recipe.skills}
    for part, label, kind in wanted:
        asked = {name: [row for row in rows if row["part"] == part] for name, rows in answers.items()}
        scores = {name: asdict(_total(items, rows, kind)) for name, rows in asked.items() if rows}
        totals[part] += [{"label": label, "scores": scores}] if scores else []
    return totals


def _answers(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "scores.json").read_text(encoding="utf-8"))["answers"]


def _total(items: Mapping[str, Item], answers: Sequence[Mapping[str, Any]], kind: str) -> Score:
    """`kind` is the end of the name of what is scored, where a row has it beside the answer itself."""
    said = [[(items[row["id"]], row.get(f"{side}{kind}", row[side])) for row in answers] for side in SIDES]
    values = [[float(is_correct(*each)) for each in side] for side in said]
    units = [items[row["id"]].unit or row["id"] for row in answers]
    how = {"metric": "correct_frac", "version": 1, "better": "higher"}
    return Score(task="all", n=len(answers), **how, **before_and_after(*values, units=units))
