"""The stages of a sequence and what they read; and why a folder cannot go on with them.

The one rule: what is done stays done. A stage that was begun is gone on from or refused, never trained anew.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.errors import AfterwordError, CheckpointError, ConfigError, DataError
from afterword.evaluation.question_file import Question, load_questions
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.compare import arm_folder
from afterword.settings.sequence import SequenceSettings
from afterword.storage.hashes import json_sha256
from afterword.storage.records import read_record
from afterword.training import RunFolder
from afterword.training.teacher_choice import refuse_teacher

STAGES = "stages"
"""Folder of the run folders."""
MERGED = "merged"


@dataclass(frozen=True)
class Stage:
    """One corpus that is taught, as `afterword adapt` would teach it."""

    number: int
    """From 1."""
    name: str
    """Of its corpus."""
    settings: AdaptSettings

    def __str__(self) -> str:
        return f"{self.number}-{arm_folder(self.name)}"

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(self.settings.output_dir)


@dataclass(frozen=True)
class Taught:
    """What is measured of a corpus: its documents, its held-out ones and its questions, read."""

    name: str
    documents: Corpus
    held_out: Corpus | None
    questions: tuple[Question, ...]

    @property
    def content_sha256(self) -> str:
        """Over all that is measured on."""
        held_out = self.held_out and self.held_out.content_sha256
        return json_sha256([self.documents.content_sha256, held_out, [str(each) for each in self.questions]])


def stages_of(settings: SequenceSettings) -> tuple[Stage, ...]:
    """The stages in their order. The first begins with the first model, each other with the result of the one before.

    All but the first are held to the reference, which is the first model unless it is given; given, the first one too.
    """
    model, held_to, stages = settings.model_name_or_path, settings.reference, list[Stage]()
    for number, name in enumerate(settings.corpora, start=1):
        folder = Path(settings.output_dir) / STAGES / f"{number}-{arm_folder(name)}"
        adapt = read_settings(settings.stage_settings(name, model, str(folder), held_to=held_to))
        stages.append(Stage(number, name, adapt))
        model = str(folder / MERGED if adapt.use_peft else folder)
        held_to = settings.reference or settings.model_name_or_path
    return tuple(stages)


def read_corpora(settings: SequenceSettings, stages: Sequence[Stage], scratch: Path) -> tuple[Taught, ...]:
    """Every corpus as its stage reads it. ConfigError with all that cannot be read, or that its stage cannot be."""
    found, problems = list[Taught](), list[str]()
    for stage in stages:
        about, options = settings.corpus(stage.name), CorpusOptions.of(stage.settings)

        def read(sources: Sequence[str], place: str, options: CorpusOptions = options) -> Corpus:
            """Documents of the corpus, gathered in a folder of their own."""
            return read_corpus(list(sources), cache_dir=scratch / place, options=options)

        try:
            refuse_teacher(stage.settings)
            documents = read(about.documents, str(stage))
            held_out = read(about.held_out, f"{stage}-held-out") if about.held_out else None
            found.append(Taught(stage.name, documents, held_out, _questions(about.questions)))
        except ConfigError as error:
            problems += [f"corpora.{stage.name}.{problem}" for problem in error.problems]
        except AfterwordError as error:
            problems.append(f"corpora.{stage.name}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def _questions(file: str | None) -> tuple[Question, ...]:
    if file is None:
        return ()
    if not os.path.isfile(file):
        raise DataError(f"questions: {file!r} is no file. Check the path.")
    return load_questions(file)


def refuse_other_sequence(output: Path, stages: Sequence[Stage], corpora: Sequence[Taught]) -> None:
    """ConfigError, with every problem, where stages that the folder holds cannot be those that are asked for.

    CheckpointError where a stage was begun and the result that it began with is gone.
    """
    problems = [*_of_the_folder(output, stages)]
    for stage, corpus in zip(stages, corpora, strict=True):
        problems += _of_the_stage(stage, corpus)
    if problems:
        raise ConfigError(problems)
    for before, stage in itertools.pairwise(stages):
        if RunFolder(stage.folder).exists() and not RunFolder(before.folder).is_finished():
            problem = f"{stage.folder} was begun, and {before.folder}, whose result it began with, is not whole"
            raise CheckpointError(f"output_dir: {problem}. Put that back, or give another output_dir.")


def _of_the_folder(output: Path, stages: Sequence[Stage]) -> Iterator[str]:
    there, own = output / STAGES, {str(stage) for stage in stages}
    if output.is_file():
        yield f"output_dir: {str(output)!r} is a file. Give a folder that is empty or not there yet."
    elif output.is_dir() and not there.is_dir() and any(output.iterdir()):
        problem = f"output_dir: {str(output)!r} is not empty and holds no sequence"
        yield f"{problem}. Give a folder that is empty or not there yet."
    begun = sorted(folder.name for folder in there.iterdir() if folder.is_dir()) if there.is_dir() else []
    if any(name not in own for name in begun):
        problem = f"output_dir: {str(output)!r} holds a sequence of other corpora ({', '.join(begun)})"
        yield f"{problem}. Give those, in that order and others behind them, or another output_dir."


def _of_the_stage(stage: Stage, corpus: Taught) -> Iterator[str]:
    """Of a stage that was begun: other settings, or documents of another content."""
    run = RunFolder(stage.folder)
    try:
        run.refuse_other_settings(stage.settings)
    except ConfigError as error:
        yield from (f"stage {stage}: {problem}" for problem in error.problems)
    if not run.exists():
        return
    taught = read_record(stage.folder / "data.json").get("content_sha256")
    if taught != corpus.documents.content_sha256:
        problem = f"corpora.{stage.name}.documents: their content is not what stage {stage} was taught"
        yield f"{problem}. Give the documents of then, or another output_dir."
