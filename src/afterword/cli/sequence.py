"""`afterword sequence`: corpora one after another, and the page of what each did to the others."""

from pathlib import Path
from typing import Annotated

import typer

from afterword.cli.console import err, say, show_table
from afterword.cli.options import Config, Model, Overrides, command_line, told
from afterword.corpus import refuse_missing
from afterword.settings.sequence import read_sequence

Corpora = Annotated[
    list[str] | None,
    typer.Argument(help="Corpora in the order in which they are taught: a file, folder or glob for each."),
]


def sequence(
    model: Model = None,
    corpora: Corpora = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder of the stages and the page.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Teach corpora one after another, each from the last result, and show what each did to the others."""
    raw = told(config, overrides, model_name_or_path=model, corpora=corpora, output_dir=output_dir)
    settings = read_sequence(raw)
    told_apart = [settings.corpus(name) for name in settings.corpora]
    refuse_missing(file for each in told_apart for files in (each.documents, each.held_out) for file in files)
    # After the settings: it imports the libraries, which takes seconds.
    from afterword import models
    from afterword.sequence import run as running

    models.quiet_libraries()
    running.teach_in_sequence(settings, command=command_line(), console=err)
    _show(Path(settings.output_dir))


def _show(folder: Path) -> None:
    """The matrix of what every corpus is known by after every stage, and the page of it all."""
    from afterword.report import write_sequence
    from afterword.report.sequence import build_sequence

    page = build_sequence(folder)
    for matrix in page["matrices"]:
        say(f"{matrix['title']}{', less is better' if matrix['lower'] else ''}")
        show_table(("", *matrix["corpora"]), [[row["name"], *row["shown"]] for row in matrix["rows"]])
        show_table(("", *matrix["corpora"], "mean"), [[row["name"], *row["shown"]] for row in matrix["transfer"]])
    if page["retention"]:
        columns = ("", "first model", *page["stages"])
        show_table(columns, [[row["name"], row["first"], *row["shown"]] for row in page["retention"]])
    for note in page["notes"]:
        say(f"Note: {note}")
    say(f"Wrote {', '.join(path.name for path in write_sequence(folder))} to {folder}.")
