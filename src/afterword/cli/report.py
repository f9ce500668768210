"""`afterword report`."""

from pathlib import Path
from typing import Annotated

import typer

from afterword.cli.console import say, tell
from afterword.cli.options import path_of


def report(
    run: Annotated[
        Path, typer.Argument(help="Of a run, an alignment, a comparison, a sequence or a blend.", parser=path_of)
    ],
) -> None:
    """Write the pages of a folder. Of a run: report.html (self-contained), report.md and the model card."""
    from afterword.report import verdict_on, write_pages

    first, *others = write_pages(run)
    if first.name == "report.html" and (verdict := verdict_on(run)):
        tell(verdict.lines.items())
    say(f"Wrote {', '.join([str(first), *(page.name for page in others)])}.")
