"""`afterword evaluate`: the scores of a model, before and after, in one table."""

import itertools
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Column, Table

from afterword.cli.console import out, say, tell
from afterword.cli.options import CALLED, Overrides, command_line
from afterword.corpus import refuse_missing
from afterword.distributed import is_main_process
from afterword.errors import ConfigError
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.exams import exams_of
from afterword.storage.paths import unwritable

if TYPE_CHECKING:
    from afterword.evaluation.scores import Scores
    from afterword.types import Score


def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help=f"Run folder, or a model alone. {CALLED}.")],
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder for scores.json (default: the run folder).")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Measure what a run learned and what it lost, before and after, with 95 % intervals."""
    settings = read_settings(overrides or {}, EvaluateSettings)
    target = output_dir or (model if os.path.isfile(Path(model) / "config.yaml") else None)
    if target and not os.path.isfile(target) and (parent := unwritable(Path(target))):
        where = f"output_dir: {target!r} cannot be written ({parent} is not writable)"
        raise ConfigError(f"{where}. Give another folder for scores.json with -o.")
    exams = [exam.file for exam in exams_of(settings.exams or {}).values()]
    given = (settings.documents, settings.held_out, settings.general, settings.retrieve_from, exams)
    refuse_missing(name for names in given for name in names)
    from afterword.evaluation.measures import chosen_measures

    chosen_measures(settings.measures)
    # After what can be wrong: it imports the libraries, which takes seconds.
    from afterword import evaluation, models

    models.quiet_libraries()
    result = evaluation.evaluate(model, output_dir=output_dir, command=command_line(), **settings.model_dump())
    if is_main_process():
        _show(result)


def _show(result: "Scores") -> None:
    """A heading for each thing measured, and under it a line for each quantity, within 80 columns."""
    from rich.text import Text

    from afterword.report.verdict import verdict_of

    verdict = verdict_of(cast("list[Any]", [asdict(score) for score in result.scores]))
    tell(verdict.lines.items() if verdict else ())
    columns = (Column("", no_wrap=True), "before", "after", "change [95 %]")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), width=min(out.width, 80))
    for (task, n), scores in itertools.groupby(result.scores, key=lambda score: (score.task, _counted(score))):
        table.add_section()
        table.add_row(Text(f"{task}, n = {n}", overflow="fold"))
        for score in scores:
            table.add_row(Text(f"  {score.metric}", overflow="fold"), *_values(score))
    out.print(table)
    weights = ", ".join(f"{value} {name[8:]}" for name, value in result.computed_in.items() if "weights" in name)
    say(f"Weights stored in {weights}; computed in {result.computed_in['products']}.")
    for note in result.notes:
        say(f"Note: {note}")


def _counted(score: "Score") -> str:
    """How much it is of, and how many units that are where several are about one thing."""
    from afterword.report.display import counted

    return counted(cast("Any", asdict(score)))


def _values(score: "Score") -> tuple[str, str, str]:
    """Before, after, and the change with its interval."""
    before, after = ("–" if side is None else f"{side.value:.4g}" for side in (score.before, score.after))
    change = f"{score.change.value:+.3g}" if score.change else "–"
    if score.change and score.change.interval_95:
        change += " [{:+.3g}, {:+.3g}]".format(*score.change.interval_95)
    return before, after, change
