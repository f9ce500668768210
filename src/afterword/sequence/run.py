"""The sequence, stage by stage: what is finished is left as it is, what was begun goes on, what is new is taught.

The folder: `stages/` the run folders, `measured/` a file for every model, `sequence.json` what they come to so far. The
one rule: a stage is trained by what `afterword adapt` is, with the same settings and into a run folder like any other.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from afterword import models, runs
from afterword.distributed import process_count
from afterword.errors import ConfigError
from afterword.sequence.measured import MEASURED, Measuring, measure, measured_file, measuring_of, retention_problems
from afterword.sequence.stages import STAGES, Stage, Taught, read_corpora, refuse_other_sequence, stages_of
from afterword.sequence.summary import FIRST, summary_of
from afterword.settings.sequence import SequenceSettings
from afterword.storage.atomic import replace_file
from afterword.storage.locks import sole
from afterword.training import RunFolder
from afterword.training.reference import refuse_other_tokens

SUMMARY = "sequence.json"


def teach_in_sequence(
    settings: SequenceSettings, *, command: str = "", console: Console | None = None
) -> dict[str, Any]:
    """Teach every corpus that is not taught yet, measure every model on all of them, and write sequence.json.

    Its content is returned. The same command goes on with a sequence that was killed, and with one that has got more
    corpora behind its own. ConfigError for a sequence that the folder's cannot be, before a model is loaded.
    """
    if process_count() > 1:
        raise ConfigError("sequence: stages are measured in one process. Start it without torchrun.")
    console, output, stages = console or Console(stderr=True), Path(settings.output_dir), stages_of(settings)
    models.refuse_name(settings.model_name_or_path)
    refuse_other_tokens(stages[0].settings)
    with tempfile.TemporaryDirectory(prefix="afterword-sequence-") as scratch:
        corpora = _read(settings, stages, Path(scratch))
        refuse_other_sequence(output, stages, corpora)
        on = measuring_of(settings, corpora)
        with sole(output, "works in the same sequence"):
            return _taught(settings, stages, corpora, on, command, console)


def _read(settings: SequenceSettings, stages: Sequence[Stage], scratch: Path) -> tuple[Taught, ...]:
    """The corpora; ConfigError with all that is wrong with them, and with what must be kept."""
    problems, corpora = list(retention_problems(settings)), tuple[Taught, ...]()
    try:
        corpora = read_corpora(settings, stages, scratch)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return corpora


def _taught(
    settings: SequenceSettings,
    stages: Sequence[Stage],
    corpora: Sequence[Taught],
    on: Measuring,
    command: str,
    console: Console,
) -> dict[str, Any]:
    output = Path(settings.output_dir)
    _make(output)
    rows = [_measured(settings.model_name_or_path, FIRST, on, output, console, adapted=False)]
    summary = _written(settings, stages, corpora, rows, command)
    for stage in stages:
        if not RunFolder(stage.folder).is_finished():
            # What was measured of an earlier stage of this name is not of this one.
            measured_file(output, str(stage)).unlink(missing_ok=True)
            _tell(console, f"stage {stage.number}/{len(stages)}: {stage.name}")
            runs.run(runs.PlannedRun(stage.settings, None), command=command, console=console)
            models.free_memory()
        rows.append(_measured(str(stage.folder), str(stage), on, output, console, adapted=True))
        summary = _written(settings, stages, corpora, rows, command)
    return summary


def _make(output: Path) -> None:
    try:
        for name in (STAGES, MEASURED):
            (output / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"output_dir: {str(output)!r} cannot be written ({error.strerror})"
        raise ConfigError(f"{problem}. Give a folder that is empty, not there yet, or of a sequence.") from error


def _measured(model: str, name: str, on: Measuring, output: Path, console: Console, *, adapted: bool) -> dict[str, Any]:
    called = "the first model" if name == FIRST else f"stage {name}"

    def say(what: str) -> None:
        """What is being measured of which model."""
        _tell(console, f"{called}: {what}")

    return measure(model, measured_file(output, name), on, say, adapted=adapted)


def _written(
    settings: SequenceSettings, stages: Sequence[Stage], corpora: Sequence[Taught], rows: Sequence[Any], command: str
) -> dict[str, Any]:
    summary = summary_of(settings, stages, corpora, rows, command)
    replace_file(Path(settings.output_dir) / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))
    return summary


def _tell(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
