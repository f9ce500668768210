"""`afterword evaluate`: what a run learned and what it lost, before and after, into scores.json."""

import json
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.distributed import is_main_process, process_count, together
from afterword.errors import ConfigError, DataError
from afterword.evaluation import losses, suites
from afterword.evaluation.exam_files import Exam, load_exam
from afterword.evaluation.exams import prompt_turns
from afterword.evaluation.measure import SEARCHED, Inputs, Measure, Models, Row
from afterword.evaluation.measures import MEASURES, chosen_measures
from afterword.evaluation.pair import load_models
from afterword.evaluation.question_file import load_questions, of_split
from afterword.evaluation.task_loading import LoadedTasks, load_tasks
from afterword.evaluation.task_model import refuse_missing_vllm
from afterword.evaluation.tasks import asking_of, rounds_of
from afterword.evaluation.written_ahead import written_ahead
from afterword.models import base_of_adapter, has_result, is_adapter, load_tokenizer, refuse_name, replace_file
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.exams import exams_of
from afterword.storage.paths import at_home
from afterword.storage.records import read_record
from afterword.types import Score


@dataclass(frozen=True)
class Scores:
    """Everything one evaluation measured."""

    model: str
    reference: str | None
    scores: list[Score] = field(default_factory=list[Score])
    samples: list[Row] = field(default_factory=list[Row])
    answers: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])
    computed_in: dict[str, str] = field(default_factory=dict[str, str])
    """The precision that the weights of each model are stored in, and that of all products."""


def evaluate(
    model: str | Path,
    *,
    output_dir: str | Path | None = None,
    command: str = "",
    measures: Sequence[str | Measure] = (),
    like: Mapping[str, Any] | None = None,
    **what: Any,
) -> Scores:
    """Measure a run folder (against its base) or a model alone; see `EvaluateSettings` for what can be measured.

    `like`: settings of a run whose documents a model alone is measured with, read as that run would read them.
    `measures` are those of others, by name, `package.module:NAME` or as objects: they are made after the package's.
    Scores go to scores.json in `output_dir`, by default the run folder itself. DataError, once that is written, where
    a measure of others failed.
    """
    asked_for = [measures] if isinstance(measures, str | Measure) else measures
    names = tuple(each.name if isinstance(each, Measure) else each for each in asked_for)
    name, asked = at_home(str(model)), read_settings({**what, "measures": names}, EvaluateSettings)
    objects = {each.name: each for each in asked_for if isinstance(each, Measure)}
    chosen = chosen_measures([objects.get(each, each) for each in asked.measures])
    own = _run_settings(Path(name))
    folder = Path(at_home(str(output_dir))) if output_dir else Path(name) if own else None
    if folder and folder.is_file():
        raise ConfigError(f"output_dir: {str(folder)!r} is a file. Give a folder for scores.json.")
    run = own or dict(like or {})
    settings = _completed(asked, name, run)
    for called in (name, settings.reference):
        refuse_name(called or name)
    with together(), tempfile.TemporaryDirectory(prefix="afterword-evaluate-") as scratch:
        inputs = _inputs(name, settings, _read(asked, run, Path(scratch)))
        _refuse_retrieval(inputs)
        possible = _possible(chosen, inputs)
        models = load_models(name, settings)
        inputs = replace(inputs, ahead=written_ahead(models, inputs, [measure.name for measure in possible]))
        result = Scores(name, settings.reference, computed_in=losses.computed_in(models, name, settings.reference))
        failed = _add_all(result, possible, models, inputs)
    if not result.scores and not failed:
        known = "documents, questions, an exam, a suite, general text or tasks"
        raise ConfigError(f"documents: nothing to measure. Give {known}.")
    if folder and result.scores and is_main_process():
        about = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
        scores = {**about, "settings": settings.model_dump(), **asdict(result)}
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "scores.json", json.dumps(scores, indent=1, ensure_ascii=False))
    if failed:
        kept = f" What was measured before it is in {folder / 'scores.json'}." if folder and result.scores else ""
        raise DataError(f"{failed.problem}{kept} Mend it, or leave it out of measures.") from failed.error
    return result


def _run_settings(folder: Path) -> dict[str, Any]:
    """config.yaml of a run folder; nothing for a model alone."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    if not has_result(folder):
        raise ConfigError(f"RUN: {str(folder)!r} has no finished model. Run `afterword adapt` to its end first.")
    return read_record(path)


def _completed(asked: EvaluateSettings, name: str, run: dict[str, Any]) -> EvaluateSettings:
    """Fill in what the run folder knows: its base, its documents, its held-out documents."""
    base = base_of_adapter(name) if is_adapter(name) else None
    before = run.get("reference") or run.get("model_name_or_path", base)
    known = {"reference": before, "documents": tuple(run.get("documents", ()))}
    known |= {"held_out": tuple(run.get("eval_documents", ())), "max_length": run.get("max_length")}
    filled = {key: getattr(asked, key) or value for key, value in known.items()}
    return asked.model_copy(update={**filled, "language": run.get("language", asked.language)})


def _read(asked: EvaluateSettings, run: dict[str, Any], scratch: Path) -> dict[str, Corpus]:
    """Documents by part. Those of the run are read as it read them: the same columns, and no more of them."""
    own = {"documents": run.get("documents"), "held_out": run.get("eval_documents")}
    options = CorpusOptions.of(run)
    given = {part: list(getattr(asked, part)) for part in ("documents", "held_out", "general", "retrieve_from")}
    # What the run was taught is read as it was, also where it is named again, as for drift on it.
    as_taught = [[], list(run.get("documents", ()))]
    chosen = [
        (part, sources or own.get(part), options if sources in as_taught else None) for part, sources in given.items()
    ]
    return {part: read_corpus(files, cache_dir=scratch / part, options=how) for part, files, how in chosen if files}


def _refuse_retrieval(inputs: Inputs) -> None:
    """ConfigError where there is nothing to search, or nothing to search for."""
    problems = list[str]()
    if inputs.settings.retrieve and not (inputs.questions or inputs.suite):
        problems.append("retrieve: there is no question to search for. Give questions or a suite.")
    if inputs.settings.retrieve and not any(len(inputs.documents.get(part, ())) for part in SEARCHED):
        problems.append("retrieve: there are no documents to search. Give documents or retrieve_from.")
    if inputs.settings.retrieve_from and not inputs.settings.retrieve:
        problems.append("retrieve_from: nothing is retrieved. Give retrieve, the number of excerpts, or leave it out.")
    if problems:
        raise ConfigError(problems)


_GIVEN_BY = {"reference": "a run, or a model with --reference"}


def _inputs(name: str, settings: EvaluateSettings, documents: Mapping[str, Corpus]) -> Inputs:
    asked = of_split(load_questions(settings.questions), settings.split) if settings.questions else ()
    asked = losses.drawn(asked, settings.max_questions, settings.seed)
    suite = _suite(settings) if settings.suite else None
    tasks = _tasks(settings, name) if settings.tasks else None
    return Inputs(name, settings, documents, asked, suite, dict(_exams(settings)), tasks)


def _exams(settings: EvaluateSettings) -> Iterator[tuple[str, Exam]]:
    for name, how in exams_of(settings.exams or {}).items():
        prompt_turns(name, how)
        exam = load_exam(name, how)
        count = how.max_items or len(exam.items)
        yield name, replace(exam, items=tuple(losses.drawn(exam.items, count, settings.seed)))


def _tasks(settings: EvaluateSettings, name: str) -> LoadedTasks:
    if settings.tasks_backend == "vllm":
        refuse_missing_vllm()
    loaded = load_tasks(settings.tasks, tasks_path=settings.tasks_path, asking=asking_of(settings))
    rounds_of(load_tokenizer(name), loaded)
    return loaded


def _suite(settings: EvaluateSettings) -> suites.Suite:
    if settings.suite_cache and Path(settings.suite_cache).is_file():
        raise ConfigError(f"suite_cache: {settings.suite_cache!r} is a file. Give a folder.")
    suite = suites.find_suite(settings.suite or "")
    return suites.drawn_suite(suite, split=settings.split, max_items=settings.max_items, seed=settings.seed)


def _possible(chosen: Sequence[Measure], inputs: Inputs) -> list[Measure]:
    """Of the package's, those that have what they need. ConfigError for one that was asked for and has not."""
    possible = list[Measure]()
    if inputs.has("tasks") and process_count() > 1:
        problem = "the harness shares out its documents by itself"
        raise ConfigError(f"tasks: {problem}. Leave them out here, and start it for them without torchrun.")
    for measure in chosen:
        missing = [need for need in measure.needs if not inputs.has(need)]
        if missing and measure.name not in MEASURES:
            given = ", ".join(_GIVEN_BY.get(need, f"--{need.replace('_', '-')}") for need in missing)
            raise ConfigError(f"measures: {measure.name!r} needs {' and '.join(missing)}. Give {given}.")
        possible += [] if missing else [measure]
    return possible


@dataclass(frozen=True)
class _Failed:
    """A measure of others that did not end well."""

    problem: str
    error: Exception


def _add_all(result: Scores, possible: Sequence[Measure], models: Models, inputs: Inputs) -> _Failed | None:
    """What each measure found. The first of others that fails ends it, and what was found before it stays."""
    for measure in possible:
        if measure.name in MEASURES:
            _add(result, measure, models, inputs)
            continue
        try:
            _add(result, measure, models, inputs)
        except Exception as error:  # The function is the person's own, and may raise whatever it likes.
            failed = _Failed(_problem(measure.name, error), error)
            result.notes.append(failed.problem)
            return failed
    return None


def _problem(name: str, error: Exception) -> str:
    """What went wrong in a measure of others: its name, the place in the person's own file, and what was said."""
    if isinstance(error, ConfigError) and error.problems[0].startswith(f"measures: {name!r}"):
        return error.problems[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not Path(frame.filename).is_relative_to(Path(__file__).parents[1])]
    # What it calls of other packages comes after it, and tells less.
    last = [frame for frame in own if frame.filename == own[0].filename][-1:]
    where = "".join(f" at {Path(frame.filename).name}, line {frame.lineno}" for frame in last)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"measures: {name!r} failed{where} ({said})."


def _add(result: Scores, measure: Measure, models: Models, inputs: Inputs) -> None:
    """What a measure found, to what was found before."""
    found = measure.measure(models, inputs)
    scores = measure.scores(found)
    if measure.name not in MEASURES:
        _check_tasks(measure.name, scores)
    if not models.are_two:
        # Of a model alone there is one value, and it stands where the adapted model's would.
        scores = [score if score.after else replace(score, after=score.before, before=None) for score in scores]
    result.scores.extend(scores)
    result.answers.extend(found.answers)
    result.samples.extend(found.samples)
    result.notes.extend(found.notes)


def _check_tasks(name: str, scores: Sequence[Score]) -> None:
    """ConfigError where the scores of a measure of others are not told apart from those of another."""
    for task in (score.task for score in scores):
        if task != name and not task.startswith(f"{name}/"):
            raise ConfigError(f"measures: {name!r} gave the task {task!r}. Let it begin with {name + '/'!r}.")
