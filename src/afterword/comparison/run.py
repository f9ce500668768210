"""The grid, cell by cell: what has a row is not run again, what was begun is resumed, what fails is written down.

The folder: `grid.json` what was asked for, `rows.jsonl` a row for every cell that ended, `cells/` the run folders,
`compare.json` what it comes to. The one rule: a row is appended only when its scores are there.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from afterword import evaluation, models
from afterword.alignment.inputs import check
from afterword.alignment.run import run_alignment
from afterword.comparison import costs, grid
from afterword.comparison.apart import GRID, apart
from afterword.comparison.first_stages import drop_stages, keep_stage, shared_stages, take_stage
from afterword.comparison.grid import Cell, Contents
from afterword.comparison.searches import Search, like, row_of, searches_of
from afterword.comparison.summary import read_rows, summarise
from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.errors import AfterwordError, ConfigError
from afterword.evaluation.exam_learning import learning_by_split
from afterword.evaluation.suites import find_suite
from afterword.evaluation.task_loading import load_tasks
from afterword.evaluation.task_presets import outside_pick
from afterword.evaluation.task_retention import PREFIX, retention_by_split
from afterword.evaluation.tasks import asking_of, rounds_of
from afterword.pool import Pool, open_pool
from afterword.progress import Progress
from afterword.settings.adapt import read_settings
from afterword.settings.align import AlignSettings, following
from afterword.settings.compare import BlendSettings, CompareSettings, underscored
from afterword.settings.evaluate import RETRIEVAL, EvaluateSettings
from afterword.settings.workers import workers_of
from afterword.storage.atomic import replace_file
from afterword.storage.hashes import json_sha256
from afterword.storage.locks import alone_in
from afterword.storage.parsing import parse_json
from afterword.training import Interrupted, quiet_libraries, run_adaptation
from afterword.training.run_folder import environment
from afterword.training.teacher_choice import refuse_teacher

_NO_SCORE = ("suite", "suite_cache", "tasks_batch_size", "confirm_run_unsafe_code")
"""Settings of evaluate that change no score, or are told otherwise."""
_CONFIGURATION = "configuration_sha256"
"""The name of a row's own, which is no part of its fingerprint."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "checkpoint-*", "merged", "result.partial", models.MANIFEST)
"""What is removed of a cell that was measured. Its settings, metrics and scores stay."""


@dataclass(frozen=True)
class Planned:
    """A cell with what tells it from every other."""

    cell: Cell
    training: str
    """Fingerprint of its weights."""
    configuration: str
    """SHA-256 of the base's configuration, which rows say beside their fingerprints."""
    fingerprint: str
    """Fingerprint of its scores."""
    stage: Path | None
    """Where the run before its alignment is kept; None where no other cell has the same."""


@dataclass(frozen=True)
class _Task:
    """A cell to be run, with all that it takes."""

    plan: Planned
    place: str
    """Its number among all, and its name."""
    settings: CompareSettings
    size: models.ModelSize
    command: str


def compare(
    settings: CompareSettings, *, retry_failed: bool = False, command: str = "", console: Console | None = None
) -> dict[str, Any]:
    """Run what is missing of the grid and write compare.json; its content is returned.

    A cell with a row is not run again, a failed one only with `retry_failed`. A cell that cannot be trained or
    measured gets a row with the reason, and the grid goes on. Cells are run one by one, or as tasks of a pool
    (`processes`, `ray`); rows are written here alone. ConfigError while another process runs the same comparison.
    """
    console, output = console or Console(stderr=True), Path(settings.output_dir)
    outside = check_tasks(settings)
    with (
        open_pool(workers_of(settings)) as pool,
        alone_in(output, "runs this comparison"),
        tempfile.TemporaryDirectory(prefix="afterword-compare-") as scratch,
    ):
        size, planned, searches = _plan(settings, Path(scratch))
        rows = _rows(output)
        again = {name for name, row in rows.items() if retry_failed and row["status"] == "failed"}
        missing = [plan for plan in planned if plan.fingerprint in again or not _is_done(plan, rows)]
        _check_alignments([plan.cell for plan in missing])
        _write_grid(settings, planned, searches, outside, command)
        _search(searches, settings, again, command, console)
        if others := sum(plan.fingerprint in rows and not _is_done(plan, rows) for plan in planned):
            said = f"rows of another model configuration (config.json): {others}"
            console.print(f"{said}; their cells are run again", highlight=False)
        tasks = _tasks(settings, planned, missing, size, command)
        # Nothing is told where nothing is left to do.
        cells = len(planned) if tasks else 0
        with Progress("cells", cells, done=len(planned) - len(tasks), console=console) as progress:
            for task, row in _rows_of(tasks, pool, console, here=workers_of(settings).is_here):
                append_row(output, row)
                _drop_unkept(settings, task.plan)
                if row["status"] == "failed":
                    console.print(f"failed: {row['reason']}", markup=False, highlight=False)
                progress.advance()
        for plan in planned:
            _drop_unkept(settings, plan)
        drop_stages(output)
    return summarise(output)


def _tasks(
    settings: CompareSettings,
    planned: Sequence[Planned],
    missing: Sequence[Planned],
    size: models.ModelSize,
    command: str,
) -> list[_Task]:
    """Every missing cell once: arms of other names can be the same cell."""
    first = {plan.fingerprint: plan for plan in reversed(missing)}
    numbered = [(f"{number}/{len(planned)}: {plan.cell}", plan) for number, plan in enumerate(planned, start=1)]
    return [_Task(p, place, settings, size, command) for place, p in numbered if first.get(p.fingerprint) is p]


def _drop_unkept(settings: CompareSettings, plan: Planned) -> None:
    if not settings.keep_models:
        drop_weights(plan.cell.folder)


def _rows_of(tasks: Sequence[_Task], pool: Pool, console: Console, *, here: bool) -> Iterator[tuple[_Task, Any]]:
    """Every task with its row, as each ends. What cells share before their alignment, one of them trains first."""
    first = {task.plan.stage: task for task in reversed(tasks) if task.plan.stage}
    leading = [task for task in tasks if task.plan.stage is None or first[task.plan.stage] is task]
    following_them = [task for task in tasks if task not in leading]
    for wave in [tasks] if here else [leading, following_them]:
        for number, row in pool.results(partial(_run_here, console) if here else _run_apart, wave):
            task = wave[number]
            if not here:
                console.print(f"cell {task.place}: {row['status']}", markup=False, highlight=False)
            yield task, row


def _run_here(console: Console, task: _Task) -> dict[str, Any]:
    console.print(f"cell {task.place}", markup=False, highlight=False)
    return _ended(task, console)


def _run_apart(task: _Task) -> dict[str, Any]:
    quiet_libraries()
    with apart(task.plan.cell.folder, Path(task.settings.output_dir)) as console:
        return _ended(task, console)


def _check_alignments(cells: list[Cell]) -> None:
    """ConfigError for every arm whose alignment could not begin, before the first cell is trained."""
    problems, seen = list[str](), set[str]()
    for cell in cells:
        if second := following(cell.settings):
            # What differs between the cells of an arm changes nothing here.
            same = second.model_copy(update={"model_name_or_path": "", "output_dir": "", "seed": 0})
            told = json_sha256([same.model_dump(mode="json"), cell.settings.mixture])
            if told not in seen:
                problems += _problems_of(second, cell)
            seen.add(told)
    if problems:
        raise ConfigError(problems)


def _problems_of(second: AlignSettings, cell: Cell) -> list[str]:
    try:
        check(second, cell.settings)
    except ConfigError as error:
        return [f"arm {cell.arm}: {problem}" for problem in error.problems]
    return []


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    """The last row of every fingerprint."""
    return {row["fingerprint"]: row for row in read_rows(output)}


def _is_done(plan: Planned, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether its row is there, of the base's configuration as it is now. A row that does not say its own counts."""
    row = rows.get(plan.fingerprint)
    return row is not None and row.get(_CONFIGURATION, plan.configuration) == plan.configuration


def _search(
    searches: Sequence[Search], settings: CompareSettings, again: Collection[str], command: str, console: Console
) -> None:
    """The arms that train nothing. First, because they are quick."""
    output = Path(settings.output_dir)
    for search in searches:
        if search.fingerprint not in again and search.is_done(_rows(output)):
            continue
        console.print(f"arm {search.arm}: nothing is trained", markup=False, highlight=False)
        started, name = time.perf_counter(), settings.model_name_or_path
        more = {"like": like(settings), "retrieve": search.retrieve, "output_dir": search.folder}
        measured = measure(name, settings, command, **more)
        append_row(output, row_of(search, measured, time.perf_counter() - started, environment()))


def _plan(settings: CompareSettings, scratch: Path) -> tuple[models.ModelSize, list[Planned], list[Search]]:
    """Every cell and every search with its fingerprint. Documents are read once for each way of reading."""
    cells = grid.cells_of(settings)
    for cell in cells:
        refuse_teacher(cell.settings)
    name = settings.model_name_or_path
    base = models.load_model(name, dtype=models.saved_dtype(models.load_config(name)))
    contents = Contents(models.weights_fingerprint(base), suite_fingerprint(settings.suite), evaluating(settings))
    configuration = models.configuration_sha256(base)
    size, corpora = models.size_of(base), dict[CorpusOptions, Corpus]()
    del base

    def read(cell: Cell) -> str:
        """The content of the documents, as the cell reads them."""
        return content(CorpusOptions.of(cell.settings))

    def content(options: CorpusOptions) -> str:
        """The content of the documents, read with these options; each way of reading once."""
        # Every cell has a folder of its own inside the comparison's.
        options = replace(options, output_dir=settings.output_dir)
        if options not in corpora:
            work = scratch / str(len(corpora))
            corpora[options] = read_corpus(list(settings.documents), cache_dir=work, options=options)
        return corpora[options].content_sha256

    stages = {cell.folder: grid.stage_fingerprint(cell, contents.model, read(cell), configuration) for cell in cells}
    shared = shared_stages(cells, stages, Path(settings.output_dir))

    def planned(cell: Cell) -> Planned:
        """The cell with the fingerprint of everything that its scores follow from."""
        training = grid.training_fingerprint(cell, contents.model, read(cell))
        scores = grid.fingerprint(training, contents)
        return Planned(cell, training, configuration, scores, shared.get(cell.folder))

    searched = content(CorpusOptions.of(like(settings))) if settings.retrieval else ""
    return size, [planned(cell) for cell in cells], searches_of(settings, contents, searched, configuration)


def suite_fingerprint(name: str) -> str:
    """SHA-256 of a suite's items and of what else its scores follow from; nothing where there is none.

    Refused before anything is trained.
    """
    if not name:
        return ""
    suite = find_suite(name)
    return json_sha256([suite.fingerprint, suite.refusals, suite.texts])


def evaluating(settings: CompareSettings | BlendSettings) -> dict[str, Any]:
    """The settings of evaluate that can change a score, with the defaults that a later version may change."""
    resolved, later = evaluate_settings(settings).model_dump(mode="json"), EvaluateSettings.came_later()
    if resolved["precision"] == "auto":
        # What is left to the machine stays so, as in training: a row recorded on another one counts.
        del resolved["precision"]
    counted = {name: EvaluateSettings.without_effect(name, value) for name, value in resolved.items()}
    kept = {name: counted[name] if name in later else value for name, value in resolved.items()}
    # A setting that came later counts only where it has a value, so that rows recorded before it stay valid.
    kept = {name: value for name, value in kept.items() if value is not None or name not in later}
    # Nor does where it is computed change what is scored.
    kept = {name: value for name, value in kept.items() if name in EvaluateSettings.weighing()}
    unsaid = {*_NO_SCORE, *(RETRIEVAL if resolved["retrieve"] is None else ())}
    return grid.by_content({name: value for name, value in kept.items() if name not in unsaid})


def evaluate_settings(settings: CompareSettings | BlendSettings) -> EvaluateSettings:
    """How every cell is evaluated."""
    return read_settings(underscored(settings.evaluate), EvaluateSettings)


def check_tasks(settings: CompareSettings | BlendSettings) -> list[str]:
    """The skills of tasks that a pick does not look at, of those by which retention is counted beside the suite.

    ConfigError for a task that cannot be asked, before anything is trained.
    """
    evaluating_by = evaluate_settings(settings)
    if evaluating_by.tasks:
        how = asking_of(evaluating_by)
        loaded = load_tasks(evaluating_by.tasks, tasks_path=evaluating_by.tasks_path, asking=how)
        name = settings.base if isinstance(settings, BlendSettings) else settings.model_name_or_path
        rounds_of(models.load_tokenizer(name), loaded)
    return sorted(f"{PREFIX}{name}" for name in outside_pick(evaluating_by.tasks))


def _ended(task: _Task, console: Console) -> dict[str, Any]:
    """The row of a cell that was run, complete or failed."""
    plan, cell, settings, command = task.plan, task.plan.cell, task.settings, task.command
    about = {"arm": cell.arm, "learning_rate": cell.learning_rate, "seed": cell.seed, "fingerprint": plan.fingerprint}
    about |= {_CONFIGURATION: plan.configuration, "settings": grid.settings_of(cell)}
    try:
        _make_way(plan)
        if take_stage(plan.stage, cell):
            console.print("stage 1: as another cell trained it", highlight=False)
        run_adaptation(cell.settings, command=command, console=console, teacher_caches=_teacher_caches(cell, settings))
        keep_stage(cell.folder, plan.stage)
        models.free_memory()
        adapted = cell.folder
        if second := following(cell.settings):
            adapted = run_alignment(second, console=console, command=command).path
            models.free_memory()
        started = time.perf_counter()
        measured = measure(adapted, settings, command)
        seconds = time.perf_counter() - started
    except Interrupted:
        raise
    except AfterwordError as error:
        return {"format": 1, "status": "failed", "reason": str(error), **about}
    finally:
        models.free_memory()
    cost = costs.cost_of(cell.folder, task.size, frozen=cell.settings.use_peft)
    environment = parse_json((cell.folder / "environment.json").read_text(encoding="utf-8"))
    ended = {"cost": {**cost, "evaluate_seconds": seconds}, "environment": environment}
    return {"format": 1, "status": "complete", **about, **measured, **ended}


def _teacher_caches(cell: Cell, settings: CompareSettings) -> Path | None:
    """Where the cells of a grid keep what their teachers say; None where theirs are not cached."""
    if cell.settings.teacher != "cached":
        return None
    return Path(cell.settings.teacher_cache or Path(settings.output_dir) / "teacher").expanduser()


def measure(run: Path | str, settings: CompareSettings | BlendSettings, command: str, **more: Any) -> dict[str, Any]:
    """The scores of a finished cell, by `afterword evaluate` with the suite; scores.json is in the run folder.

    `more` is for `evaluate` besides, and wins.
    """
    # The base answers once for all cells.
    kept = {"suite_cache": str(Path(settings.output_dir) / "reference")}
    given = settings.evaluate_settings() if isinstance(settings, CompareSettings) else settings.evaluate
    asked = {**kept, **underscored(settings.evaluate if more else given), "suite": settings.suite or None, **more}
    result = evaluation.evaluate(run, command=command, **asked)
    every = [*result.scores, *retention_by_split(result.scores), *learning_by_split(result.answers)]
    # How each was measured is in scores.json; a row holds the numbers.
    scores = [{name: value for name, value in asdict(score).items() if name != "details"} for score in every]
    return {"scores": scores, "notes": list(result.notes)}


def _make_way(plan: Planned) -> None:
    """Move a run of other settings, model or documents out of the cell's folder, and name what the folder is for.

    The name is beside the folder, because a run folder may hold nothing but a run. One without a configuration is
    taken to have this one.
    """
    folder, name = plan.cell.folder, [plan.training, plan.configuration]
    named = folder.with_name(f"{folder.name}.fingerprint")
    before = named.read_text(encoding="utf-8").split() if named.exists() else name
    if before != name[: len(before)] and folder.exists():
        aside = folder.with_name("-".join([folder.name, *(part[:8] for part in before)]))
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    folder.parent.mkdir(parents=True, exist_ok=True)
    replace_file(named, " ".join(name) + "\n")


def drop_weights(run: Path) -> None:
    """Delete the weights and checkpoints of a run folder; its settings, metrics and scores stay."""
    # An alignment that followed is in a folder of the run, and its first stage in one of that.
    folders = (run, run / "aligned", run / "aligned" / "sft")
    for path in (path for folder in folders for pattern in _WEIGHTS for path in folder.glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def append_row(output: Path, row: Mapping[str, Any]) -> None:
    """Add a row to rows.jsonl, flushed to the disk; half a row that a kill left before it is cut off."""
    path = output / "rows.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        replace_file(path, text[: text.rfind("\n") + 1])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _write_grid(
    settings: CompareSettings, planned: list[Planned], searches: list[Search], outside: list[str], command: str
) -> None:
    output = Path(settings.output_dir)
    cells = [
        {"arm": p.cell.arm, "learning_rate": p.cell.learning_rate, "seed": p.cell.seed, "fingerprint": p.fingerprint}
        for p in planned
    ]
    cells += [search.about for search in searches]
    arms = {arm.name: dict(arm.settings) for arm in grid.arms_of(settings)}
    arms |= {search.arm: dict(search.settings) for search in searches}
    about = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
    asked = {**about, "settings": settings.model_dump(mode="json"), "arms": arms, "cells": cells}
    asked |= {"outside_pick": outside} if outside else {}
    try:
        output.mkdir(parents=True, exist_ok=True)
        replace_file(output / GRID, json.dumps(asked, indent=1, ensure_ascii=False))
    except OSError as error:
        problem = f"output_dir: {settings.output_dir!r} cannot be written ({error.strerror})"
        raise ConfigError(f"{problem}. Give a folder that is empty, not there yet, or of a comparison.") from error
