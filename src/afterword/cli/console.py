"""What commands print: lines, tables and text templates, on the two streams."""

import shlex
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from afterword.errors import printable

# A table in a file or a pipe is not cut to the 80 columns of a terminal that is not there.
out, err = Console(width=None if sys.stdout.isatty() else 150), Console(stderr=True)


def say(text: str) -> None:
    """Print a text as it stands. Names of files are in it, which may hold anything."""
    out.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def say_error(text: str) -> None:
    """Print a text to stderr."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def fill(template: str, **values: object) -> None:
    """Print what one of the templates beside this file makes of the values."""
    import jinja2

    from afterword.report.display import duration

    loader = jinja2.PackageLoader("afterword.cli")
    texts = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"])
    texts.filters["shell"] = shlex.join
    say(texts.get_template(template).render(duration=duration, **values))


def tell(lines: Iterable[tuple[str, str]]) -> None:
    """Print sentences, each with what it is about: what was learned, what was lost, what to do next."""
    for about, sentence in lines:
        say(f"{about:<9}{sentence}")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table and a blank line."""
    from rich.text import Text

    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        # As Text, because names of arms are no markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)
    out.print()
