"""A cell in a process of its own, here or on another machine: what it says goes to a file beside its run folder.

The one rule: a run folder is of one process at a time, also where a machine was taken for dead and was not.
"""

import contextlib
import platform
from collections.abc import Generator
from pathlib import Path

from rich.console import Console

from afterword.errors import ConfigError
from afterword.storage.locks import held

GRID = "grid.json"


@contextlib.contextmanager
def apart(run: Path, output: Path) -> Generator[Console]:
    """The run folder for this process alone, with a console that writes to `NAME.log` beside it.

    ConfigError where this machine does not see the comparison's folder.
    """
    if not (output / GRID).is_file():
        problem = f"output_dir: the machine {platform.node()} does not see {str(output.resolve())!r}"
        raise ConfigError(f"{problem}. Give a folder that all machines share.")
    run.parent.mkdir(parents=True, exist_ok=True)
    with held(run.with_name(f"{run.name}.lock"), "runs this cell"), open(f"{run}.log", "a", encoding="utf-8") as log:  # noqa: SIM117
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield Console(file=log)
