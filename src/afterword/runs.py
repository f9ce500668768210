"""A run with the alignment that may follow it: what the command line and Python have in common.

The one rule: whatever can be found wrong with either is found before the first of them is trained; and what is wrong
with the settings alone before the libraries are imported, which takes seconds.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterword.distributed import is_main_process, process_count
from afterword.errors import CheckpointError, ConfigError
from afterword.methods import Method, register_method
from afterword.named_models import refuse_nowhere
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.align import AlignSettings, following
from afterword.settings.base import without_problems
from afterword.storage.locks import sole

if TYPE_CHECKING:
    from rich.console import Console

    from afterword.alignment.run import AlignResult
    from afterword.training import RunResult


@dataclass(frozen=True)
class PlannedRun:
    """What is to be run."""

    run: AdaptSettings
    alignment: AlignSettings | None
    """Of the alignment that follows; None where none does."""


_PREFIX = "afterword-"
"""Of a folder that nobody named."""


def adapt(model: str | Path, documents: Any, *, method: str | Method | None = None, **settings: Any) -> "RunResult":
    """Teach documents to a model and write the result to a run folder. The Python form of `afterword adapt`.

    `model` is a folder or hub id; `documents` are paths, rows, texts or a data set (see `read_corpus`); `method` is a
    name, `package.module:NAME`, or a declaration of your own (None: that of the preset, else the default); `settings`
    are those of the command line, by the same names: with `then="align"` the alignment follows, into `aligned/` of the
    run folder. Without `output_dir`, a new temporary folder is used.
    """
    named = [str(documents)] if isinstance(documents, (str, Path)) else []
    raw: dict[str, Any] = {**settings, "model_name_or_path": str(model), "documents": named}
    if method is not None:
        raw["method"] = register_method(method) if isinstance(method, Method) else method
    raw["output_dir"] = str(settings["output_dir"] if "output_dir" in settings else tempfile.mkdtemp(prefix=_PREFIX))
    result, aligned = run(plan(raw), documents, command="afterword.adapt(…)")
    return replace(result, aligned=aligned.path) if aligned else result


def plan(raw: Mapping[str, Any]) -> PlannedRun:
    """What a raw tree of settings asks for. Every problem of both stages is in the one ConfigError."""
    problems, settings, second = list[str](), None, None
    try:
        settings = read_settings(raw)
    except ConfigError as error:
        problems += [*error.problems, *_folder_problems(raw)]
    try:
        asked = settings or _about_the_alignment(raw)
        if second := following(asked):
            from afterword.alignment.folder import AlignFolder
            from afterword.alignment.inputs import check

            AlignFolder(Path(second.output_dir)).state(second)
            check(second, asked)
    except ConfigError as error:
        problems += [problem for problem in error.problems if problem not in problems]
    except CheckpointError:
        # Of a model that cannot be read either way.
        if not problems:
            raise
    if settings is None or problems:
        raise ConfigError(problems)
    _refuse_models(settings)
    return PlannedRun(settings, second)


def run(
    planned: PlannedRun,
    documents: Any = None,
    *,
    command: str = "",
    console: "Console | None" = None,
    between: "Callable[[RunResult], None] | None" = None,
) -> "tuple[RunResult, AlignResult | None]":
    """Adapt, then align where that is planned; what is finished is left as it is, what was begun goes on.

    What a run of one process changed is looked at as soon as it ends (see `evaluation.first_look`).

    `documents` replaces those of the settings when given from Python. `between` is told of the run, on the main
    process, before it is aligned.
    """
    from afterword.budget import run_within_budget
    from afterword.training import push, run_adaptation

    command = command or " ".join(sys.argv)
    adapted = run_within_budget if planned.run.is_guided else run_adaptation
    with _alone_in(planned.run):
        result = adapted(planned.run, documents, command=command, console=console)
        _seen(planned.run, result, documents)
        if is_main_process():
            if between:
                between(result)
            if result.hub_model_id:
                # After what is between: the model card is part of the folder.
                push(planned.run, result.path, result.hub_model_id)
    if planned.alignment is None:
        return result, None
    from afterword.alignment.run import run_alignment

    # The next model needs the memory of the last, which references in circles would keep.
    gc.collect()
    return result, run_alignment(planned.alignment, command=command, console=console)


def _refuse_models(settings: AdaptSettings) -> None:
    """Models that are nowhere: CheckpointError for the one that is taught, ConfigError for a reference."""
    refuse_nowhere(settings.model_name_or_path)
    if settings.reference:
        try:
            refuse_nowhere(settings.reference)
        except CheckpointError as error:
            raise ConfigError(str(error).replace("model_name_or_path", "reference", 1)) from error


def _alone_in(settings: AdaptSettings) -> AbstractContextManager[None]:
    """The run folder for this command alone; of several processes the first has it for all."""
    if not settings.output_dir or not is_main_process():
        return nullcontext()
    return sole(Path(settings.output_dir), "works in the same run folder")


def _seen(settings: AdaptSettings, result: "RunResult", documents: Any) -> None:
    """The first look at a run, also of one that was killed before it."""
    from afterword.evaluation import first_look

    there = (result.path / first_look.FILE).exists() or not (result.path / "asked.yaml").exists()
    if process_count() == 1 and not (result.already_complete and there):
        # The trained model and its optimizer are in circles: their memory is for the models that are looked at.
        gc.collect()
        first_look.look(settings, documents)


def _folder_problems(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the settings that are right of those cannot continue the run that is in the folder, where there is one."""
    folder = raw.get("output_dir")
    if not isinstance(folder, str) or not os.path.isfile(Path(folder) / "config.yaml"):
        return ()
    from afterword.training import RunFolder

    settings, wrong = without_problems(raw, AdaptSettings)
    try:
        RunFolder(Path(folder)).refuse_other_settings(settings, but=wrong)
    except ConfigError as error:
        return error.problems
    return ()


def _about_the_alignment(raw: Mapping[str, Any]) -> AdaptSettings:
    """Of settings that are wrong elsewhere, those that an alignment follows from."""
    names = ("model_name_or_path", "output_dir", "seed", "then", "align")
    return read_settings({name: raw[name] for name in names if name in raw})
