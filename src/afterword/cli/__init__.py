"""The command line. Options are the fields of the settings; nothing is declared twice."""

import errno
import io
import logging
import os
import signal
import sys
import tempfile
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from afterword import __version__
from afterword.cli import (
    adapt,
    align,
    almanac,
    blend,
    compare,
    demo,
    evaluate,
    export,
    fetch,
    methods,
    models,
    quiz,
    report,
    sample,
    sequence,
    study,
)
from afterword.cli.console import say, say_error
from afterword.cli.options import with_settings
from afterword.errors import AfterwordError, ConfigError, is_disk_full, is_out_of_memory, printable
from afterword.settings.adapt import AdaptSettings
from afterword.settings.align import AlignSettings
from afterword.settings.compare import BlendSettings, CompareSettings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.export import ExportSettings
from afterword.settings.quiz import QuizSettings
from afterword.settings.sequence import DECIDED, SequenceSettings
from afterword.settings.study import StudySettings

_STOPPED = 128 + signal.SIGTERM
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
_UNUSABLE |= {errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP}
"""Of a file or folder of a person's, whoever met it."""
_LISTED = (
    with_settings(AdaptSettings, adapt.adapt),
    with_settings(EvaluateSettings, evaluate.evaluate),
    report.report,
    with_settings(ExportSettings, export.export),
    with_settings(CompareSettings, compare.compare),
    with_settings(SequenceSettings, sequence.sequence, besides=AdaptSettings, without=DECIDED),
    with_settings(BlendSettings, blend.blend),
    with_settings(AlignSettings, align.align),
    demo.demo,
    methods.methods,
    models.models,
    fetch.fetch,
    sample.sample,
    with_settings(QuizSettings, quiz.quiz),
    with_settings(StudySettings, study.study),
    almanac.almanac,
)
_COMMANDS = {command.__name__: command for command in _LISTED}


class _Interrupted(AfterwordError):  # noqa: N818  the name says what happened
    """A command that ended at Ctrl-C or SIGTERM and has no more to say about it."""

    exit_code = 128 + signal.SIGINT


class _Commands(TyperGroup):
    """Makes of an interrupt an error that `main` says: typer itself ends at one without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Interrupted("Interrupted.") from stop


app = typer.Typer(
    name="afterword",
    cls=_Commands,
    help="Teach a post-trained language model new documents, keep what it knew, and show both on one page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_WORDS = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda name: name.replace("_", "-")}
for _name, _command in _COMMANDS.items():
    app.command(name=_name, context_settings=_WORDS)(_command)


def main() -> None:
    """Entry point: one clear message and an exit code for everything that a person can cause."""
    # transformers imports torchao and bitsandbytes where they are installed, which tell of kernels for other machines.
    for name in ("torchao", "torch.utils._pytree", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    terminated = _interrupted_by_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A pipe may take less than UTF-8, as on Windows: what it does not take is written as an escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except AfterwordError as error:
        settings = isinstance(error, ConfigError)
        say_error(f"These settings cannot be run:\n{error}" if settings else str(error))
        sys.exit(_STOPPED if terminated else 2 if settings else getattr(error, "exit_code", 1))
    except Exception as error:
        if not (said := _of_the_machine(error)):
            raise
        say_error(printable(said))
        sys.exit(1)


def _of_the_machine(error: Exception) -> str:
    """What disk, memory or file system did not give, whichever command and library met it; else nothing."""
    place = getattr(error, "filename", None)
    if is_disk_full(error):
        where = f"{place}: " if place else ""
        there = "there" if place else "where the command writes"
        temporary = f"Make room {there} and in {tempfile.gettempdir()} (TMPDIR), and give the same command again"
        return f"{where}The disk is full, or does not take a file. {temporary}."
    if is_out_of_memory(error):
        return "Out of memory. Lower micro_batch_tokens or max_length, or end what else runs here."
    if isinstance(error, OSError) and error.errno in _UNUSABLE and place:
        return f"{place}: {error.strerror}. Give a place that can be read and written, or make room."
    return ""


def _interrupted_by_sigterm() -> list[int]:
    """End as at Ctrl-C where a scheduler asks for it, so that temporary folders go. The list says that it did."""
    got, here = list[int](), os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        """Note the signal, once for all; a process that was forked for reading ends at once."""
        if os.getpid() != here:
            os._exit(128 + number)  # A process that was forked for reading: nothing is its own.
        got.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    return got


def _version(asked: bool) -> None:
    if asked:
        say(f"afterword {__version__}")
        raise typer.Exit


@app.callback(context_settings=_WORDS)
def _program(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Before every command."""
