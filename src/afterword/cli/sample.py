"""`afterword sample`."""

from pathlib import Path
from typing import Annotated

import typer

from afterword.cli.console import say
from afterword.cli.options import CALLED, path_of


def sample(
    model: Annotated[str, typer.Argument(help=f"The model that writes. {CALLED}.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON-lines file to write.", parser=path_of, metavar="PATH")
    ],
    count: Annotated[int, typer.Option(min=1, help="Samples: one exchange each of a chat model, else one text.")] = 200,
    new_tokens: Annotated[int, typer.Option(min=8, help="Most tokens of a turn, or of a text.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Let a model write text of its own, to replay while it learns: no general data is needed."""
    from afterword import models
    from afterword.models.own_text import write_own_text

    models.quiet_libraries()
    written = write_own_text(model, output, count=count, new_tokens=new_tokens, seed=seed)
    say(f"Wrote {written:,} samples to {output}.")
    kind = "kind=instructions,format=chat," if '"messages"' in output.read_text(encoding="utf-8")[:20] else ""
    say(f"Replay them: afterword adapt {model} DOCUMENTS --mixture own={output},{kind}tokens=0.25 --replay kl")
