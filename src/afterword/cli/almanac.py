"""`afterword almanac`."""

from pathlib import Path
from typing import Annotated

import typer

from afterword.cli.console import say
from afterword.cli.options import path_of
from afterword.named_models import MODELS


def almanac(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.", parser=path_of)],
    part: Annotated[
        int, typer.Option(min=0, max=3, help="Which set of news: 0 to choose settings by, 1 to report results on.")
    ] = 0,
    people: Annotated[int, typer.Option(min=4, help="New people; towns, companies and works in proportion.")] = 16,
    changes: Annotated[int, typer.Option(min=1, help="Changes of each of the four relations that change.")] = 4,
    documents_per_entity: Annotated[int, typer.Option(min=1, help="Documents about each new or changed entity.")] = 12,
) -> None:
    """Write the embedded world: documents after its cutoff, and the suite that asks what was learned and kept."""
    from afterword.almanac.files import write_files
    from afterword.almanac.world import Size

    arrivals = Size(people, people // 4, people // 4, people // 2)
    written = write_files(folder, part, per_entity=documents_per_entity, arrivals=arrivals, changes=changes)
    for name, lines in written.items():
        say(f"{folder / name}: {lines} lines")
    say(f"Models that know the world before: {', '.join(MODELS)}.")
