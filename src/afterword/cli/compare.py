"""`afterword compare`: a grid of runs, its tables and its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from afterword.cli.console import err, say, show_table
from afterword.cli.options import Config, Documents, Model, Overrides, command_line, path_of, told
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings


def compare(
    model: Model = None,
    documents: Documents = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder of the cells, their rows and the page.")
    ] = None,
    config: Config = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run cells again that failed.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing. Print the tables and write the page of what is there.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Learning against retention of a grid of runs: arms × learning rates × seeds, resumable cell by cell."""
    raw = told(config, overrides, model_name_or_path=model, documents=documents, output_dir=output_dir)
    if report_only:
        _show(path_of(raw.get("output_dir") or model or "."))
        return
    settings = read_settings(raw, CompareSettings)
    from afterword import models
    from afterword.comparison import run as running

    models.quiet_libraries()
    running.compare(settings, retry_failed=retry_failed, command=command_line(), console=err)
    _show(Path(settings.output_dir))


def _show(folder: Path) -> None:
    """The points, hypervolumes and picks that rows.jsonl comes to, and the page of them."""
    from afterword.comparison.summary import summarise
    from afterword.report import write_comparison
    from afterword.report.comparison import build_comparison

    summarise(folder)
    page = build_comparison(folder)
    points = [
        [row["arm"], row["rate"], *_with_intervals(row), "yes" if row["dominated"] else "no"] for row in page["points"]
    ]
    show_table(("arm", "learning rate", "learning [95 %]", "retention [95 %]", "dominated"), points)
    areas = [[row["arm"], f"{row['value']} {row['interval']}", row["seeds"]] for row in page["hypervolumes"]]
    show_table(("arm", "hypervolume [95 %]", "seeds"), areas)
    picks = [[row["arm"], row["reason"] or row["rate"], *_with_intervals(row)] for row in page["picks"]]
    show_table(("arm", "pick, chosen on dev", "learning on test [95 %]", "retention on test [95 %]"), picks)
    for note in page["data"]["notes"]:
        say(f"Note: {note}")
    written = [path.name for path in write_comparison(folder) if path]
    say(f"Wrote {', '.join(written)} to {folder}.")


def _with_intervals(row: Mapping[str, Any]) -> list[str]:
    return ["{mean} {interval}".format(**row[side]) if side in row else "" for side in ("learning", "retention")]
