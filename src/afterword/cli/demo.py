"""`afterword demo`."""

from pathlib import Path
from typing import Annotated

import typer

from afterword.cli.console import out
from afterword.cli.options import path_of


def demo(
    output_dir: Annotated[
        Path,
        typer.Option(
            "--output-dir", "-o", help="Folder of the demo. What it held is made anew.", parser=path_of, metavar="PATH"
        ),
    ] = Path("runs/demo"),
    world: Annotated[
        str,
        typer.Option(help="ferry: fifteen documents for a real model. almanac: a tiny model of ours, without network."),
    ] = "ferry",
    model: Annotated[str | None, typer.Option(help="Folder, name or hub id of another chat model.")] = None,
) -> None:
    """Teach a real model fifteen documents, and show what it learned and what it lost."""
    from afterword.demo.worlds import check_world

    check_world(world)
    # After what can be wrong: it imports the libraries, which takes seconds.
    from afterword import models
    from afterword.demo.run import run_demo

    models.quiet_libraries()
    run_demo(output_dir, world=world, model=model, console=out)
