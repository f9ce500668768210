"""`afterword blend`: models between two, measured, and the pick."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from afterword.cli.console import err, say, say_error, show_table
from afterword.cli.options import CALLED, Overrides, command_line, told
from afterword.settings.adapt import read_settings
from afterword.settings.compare import BlendSettings


def blend(
    base: Annotated[str | None, typer.Argument(help=f"The model that was adapted. {CALLED}.")] = None,
    adapted: Annotated[str | None, typer.Argument(help="What it became: a run folder or a model.")] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder of the picked model, the rows and the page.")
    ] = None,
    lambdas: Annotated[
        list[str] | None,
        typer.Option("--lambda", help="Shares λ of the way: 0 is BASE, 1 is ADAPTED (default: 0.2,0.4,0.6,0.8,1.0)."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Mix the weights of a model and of what it became, measure each mix, and save the best that keeps the skills."""
    raw = told(None, overrides, base=base, adapted=adapted, output_dir=output_dir, lambdas=lambdas)
    settings = read_settings(raw, BlendSettings)
    from afterword import models
    from afterword.comparison import blend as blending

    models.quiet_libraries()
    _show(blending.blend(settings, command=command_line(), console=err), settings.output_dir)


def _show(found: Mapping[str, Any], folder: str) -> None:
    """Every λ on both splits, and the pick, in a table and on a page; exit code 1 where there is none."""
    from afterword.report import write_blend

    page = write_blend(Path(folder))
    points, pick = found["points"], found["pick"]
    rows = [["0 (base)", *_values(points[0], "before"), ""]]
    for point in points:
        lost = max(point["dev"]["losses_points"].values())
        rows.append([f"{point['lambda']:g}", *_values(point, "after"), f"{lost:.1f}"])
    columns = ("λ", "learning on dev", "learning on test [95 %]", "retention on test [95 %]")
    show_table((*columns, "most lost on dev, points"), rows)
    if "reason" in pick:
        say_error(f"{pick['reason']} No model was saved. Wrote {page}.")
        raise typer.Exit(1)
    if not pick["kept_on_test"]:
        say(f"Note: on test it loses {max(pick['test']['losses_points'].values()):.1f} points on a skill.")
    say(f"Picked on dev: λ = {pick['lambda']:g}. Wrote it and {page.name} to {folder}.")
    say(f"Next: afterword evaluate {folder}")


def _values(point: Mapping[str, Any], side: str) -> list[str]:
    from afterword.report.display import interval, value

    dev, *test = (point["dev"]["learning"][side], *(point["test"][part][side] for part in ("learning", "retention")))
    shown = [f"{value('_frac', each['value'], 1)} {interval('_frac', each, 1)}" for each in test]
    return [value("_frac", dev["value"], 1), *shown]
