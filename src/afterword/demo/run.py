"""Which world a demo is told in. The one rule: a world that was not asked for is told of in one sentence."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from afterword import models
from afterword.demo.almanac import EMBEDDED, run_almanac
from afterword.demo.folder import refuse_other
from afterword.demo.real_model import REAL, run_lessons
from afterword.errors import CheckpointError, ConfigError, nearest
from afterword.storage.locks import sole

WORLDS: dict[str, tuple[str, Callable[..., Path]]] = {"ferry": (REAL, run_lessons), "almanac": (EMBEDDED, run_almanac)}
"""The model that a world is taught to where no other is named, and what tells it."""
FERRY, ALMANAC = WORLDS


def run_demo(folder: Path, *, world: str = FERRY, model: str | None = None, console: Console | None = None) -> Path:
    """Teach a world's documents to a model, measure both sides, and return the page.

    Where the real model is neither here nor to be had, the embedded world is told instead, and that is said.
    """
    console = console or Console()
    if world not in WORLDS:
        hint = nearest(world, WORLDS)
        raise ConfigError(f"world: there is no world {world!r}. {hint}There are: {', '.join(WORLDS)}.")
    with sole(folder, "makes a demo there"):
        # Before anything is fetched.
        refuse_other(folder)
        usual, tell = WORLDS[world]
        if world == FERRY and model is None and (reason := _out_of_reach(usual)):
            said = f"{reason} So this is the demo of the embedded world."
            console.print(said, markup=False, highlight=False, soft_wrap=True)
            usual, tell = WORLDS[ALMANAC]
        return tell(folder, model=model or usual, console=console)


def _out_of_reach(model: str) -> str | None:
    """Why a model that has to be fetched cannot be had; None where it is there."""
    try:
        models.load_tokenizer(model)
    except CheckpointError as error:
        return str(error)
    return None
