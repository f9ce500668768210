"""`afterword align`, and what it says when an alignment is done."""

from typing import TYPE_CHECKING, Annotated

import typer

from afterword.cli.console import err, say
from afterword.cli.options import CALLED, Config, Overrides, command_line, told
from afterword.distributed import is_main_process
from afterword.settings.adapt import read_settings
from afterword.settings.align import AlignSettings

if TYPE_CHECKING:
    from afterword.alignment.run import AlignResult


def align(
    model: Annotated[str | None, typer.Argument(metavar="RUN|MODEL", help=f"Run folder, or a model. {CALLED}.")] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Folder of the aligned model.")] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Teach a model to answer: SFT on selected general instructions, then DPO on selected preference pairs."""
    raw = told(config, overrides, model_name_or_path=model, output_dir=output_dir)
    settings = read_settings(raw, AlignSettings)
    from afterword import models
    from afterword.alignment.run import run_alignment

    models.quiet_libraries()
    say_aligned(run_alignment(settings, command=command_line(), console=err))


def say_aligned(result: "AlignResult") -> None:
    """Write the page of an alignment, and say what to do next; of several processes the first one does."""
    if not is_main_process():
        return
    from afterword.report import write_alignment

    page = write_alignment(result.path)
    done = "was complete; nothing was trained" if result.already_complete else "holds the aligned model"
    say(f"{result.path} {done}. Wrote {page.name}. Next: afterword evaluate {result.path}")
