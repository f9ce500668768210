"""A demo from nothing to its page: the same functions, in the same order, as a person's commands.

The one rule: everything that is shown was computed in this run, and a world that was not asked for is told of in one
sentence.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from afterword import models, report
from afterword.budget import run_within_budget
from afterword.budget.record import load_record
from afterword.demo.figures import drawn_answers, figures_of
from afterword.demo.folder import begin, command_line, created_now, record, refuse_other
from afterword.demo.lessons import Recipe
from afterword.demo.story import Story
from afterword.demo.worlds import WORLDS, WRITERS, check_world, recipe_of
from afterword.errors import CheckpointError
from afterword.evaluation import Scores, evaluate
from afterword.report.demo_page import Demo, build_demo, write_demo
from afterword.report.display import Score
from afterword.settings.adapt import read_settings
from afterword.storage.locks import sole
from afterword.training.run import RunResult, run_adaptation

FERRY, ALMANAC = WORLDS


def run_demo(folder: Path, *, world: str = FERRY, model: str | None = None, console: Console | None = None) -> Path:
    """Teach a world's documents to a model, measure both sides, and return the page.

    Where the real model is neither here nor to be had, the embedded world is told instead, and that is said.
    """
    console = console or Console()
    check_world(world)
    with sole(folder, "makes a demo there"):
        # Before anything is fetched.
        refuse_other(folder)
        if world == FERRY and model is None and (reason := _out_of_reach(WORLDS[world].model)):
            said = f"{reason} So this is the demo of the embedded world."
            console.print(said, markup=False, highlight=False, soft_wrap=True)
            world = ALMANAC
        return tell(folder, world, model=model or WORLDS[world].model, console=console)


def _out_of_reach(model: str) -> str | None:
    """Why a model that has to be fetched cannot be had; None where it is there."""
    try:
        models.load_tokenizer(model)
    except CheckpointError as error:
        return str(error)
    return None


def tell(folder: Path, name: str, *, model: str, console: Console, recipe: Recipe | None = None) -> Path:
    """Tell the whole story of a world into `folder`, which is made anew, and return the page."""
    started, world = time.perf_counter(), WORLDS[name]
    recipe, story = recipe or recipe_of(name), Story(console)
    # What cannot be loaded leaves no folder behind.
    parameters = sum(parameter.numel() for parameter in models.load_model(model).parameters())
    begin(folder)
    lessons = WRITERS[name](folder / "world", recipe.world)
    story.opens(model, parameters, folder)
    suite = {"suite": str(lessons.path("suite")), "suite_cache": str(folder / "cache"), **recipe.evaluate}
    asked, base = _measured(model, folder / "base", suite)
    story.asks_the_base_model(asked, base.answers, f"{lessons.count} documents {world.about}")
    open_book = {"suite": str(lessons.path("open_book")), **recipe.open_book}
    opened, reading = _measured(model, folder / "reading", open_book)
    story.reads(opened, reading.answers)
    taught, run = _adapted(folder / "taught", model, lessons.documents, recipe, story)
    again, found = _measured(str(folder / "taught"), folder / "taught", suite)
    report.write_model_card(folder / "taught")
    report.write_report(folder / "taught")
    units = {item.id: item.unit or item.id for item in lessons.suite.items}
    demo = Demo(
        format=1,
        created=created_now(),
        seconds=time.perf_counter() - started,
        world=name,
        story=world.story,
        closing=world.closing,
        model=model,
        parameters=parameters,
        taught=lessons.count,
        label=recipe.label,
        settings=recipe.adapt,
        commands=[asked, opened, taught, again],
        steps=run.steps,
        training_seconds=run.seconds,
        budget=load_record(folder / "taught"),
        figures=figures_of(found.answers, reading.answers, world, units),
        drift=[cast(Score, asdict(score)) for score in found.scores if score.task.startswith("drift/")],
        answers=drawn_answers(found.answers, recipe.shown, lessons.told, world.again),
        documents=lessons.to_read,
    )
    record(folder, demo)
    story.compares(again, build_demo(folder))
    page = write_demo(folder)
    story.ends(page, time.perf_counter() - started)
    return page


def _measured(model: str, folder: Path, settings: Mapping[str, Any]) -> tuple[str, Scores]:
    """The command that measures a model or run, and what it found."""
    own = [] if Path(model) == folder else ["-o", str(folder)]
    command = command_line("evaluate", model, *own, **settings)
    return command, evaluate(model, output_dir=folder, command=command, **settings)


def _adapted(run: Path, model: str, documents: Path, recipe: Recipe, story: Story) -> tuple[str, RunResult]:
    command = command_line("adapt", model, str(documents), "-o", str(run), **recipe.adapt)
    story.teaches(recipe.label, command)
    given = {"model_name_or_path": model, "documents": [str(documents)], "output_dir": str(run)}
    settings = read_settings({**recipe.adapt, **given})
    adapt = run_within_budget if settings.is_guided else run_adaptation
    done = adapt(settings, command=command, console=story.console)
    story.has_taught(done)
    return command, done
