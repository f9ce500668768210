"""`afterword study`, and what it says when the texts are there."""

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afterword.cli.console import say, show_table
from afterword.cli.options import Config, Documents, Model, Overrides, command_line, told
from afterword.corpus import CorpusOptions, read_corpus, refuse_missing
from afterword.errors import number_of
from afterword.settings.adapt import read_settings
from afterword.settings.study import StudySettings
from afterword.settings.workers import workers_of

if TYPE_CHECKING:
    from afterword.study.run import StudyResult
    from afterword.writing import GeneratorChoice


def study(
    model: Model = None,
    documents: Documents = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder of the texts. The same command goes on there.")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Let a model write about documents: rephrasings, questions, summaries and more, to be taught beside them."""
    raw = told(config, overrides, model_name_or_path=model, documents=documents, output_dir=output_dir)
    settings = read_settings(raw, StudySettings)
    refuse_missing(settings.documents)
    # After what can be wrong: it imports the libraries, which takes seconds.
    from afterword import models
    from afterword.study.run import write_study
    from afterword.writing import Spread, load_to_write, open_writer

    models.quiet_libraries()
    name, path = settings.model_name_or_path, Path(settings.output_dir)
    tokenizer = models.load_tokenizer(name)
    with tempfile.TemporaryDirectory(prefix="afterword-study-") as scratch:
        corpus = read_corpus(list(settings.documents), cache_dir=Path(scratch), options=CorpusOptions.of(settings))
        spread = Spread(workers_of(settings), name, settings.precision)
        load = partial(load_to_write, name, settings.precision)
        with open_writer(load, tokenizer, _choice(settings), spread=spread) as writer:
            result = write_study(writer, corpus, settings.plan(), path, model=name, command=command_line())
    _say(result, settings)


def _choice(settings: StudySettings) -> "GeneratorChoice":
    from afterword.writing import GeneratorChoice
    from afterword.writing.opening import VLLM

    return GeneratorChoice(
        generator=settings.generator,
        generator_model=settings.generator_model
        or (settings.model_name_or_path if settings.generator == VLLM else None),
        generator_requests=settings.generator_requests,
        written_folder=settings.written_folder,
        precision=settings.precision,
    )


def _say(result: "StudyResult", settings: StudySettings) -> None:
    """A line for each kind, what to read, and what to do next."""
    from afterword.study.folder import EXAMPLES, TEXTS

    rows = [
        [kind, f"{of['pieces']:,}", f"{of['tokens']:,}", f"{of['tokens_per_token']:.2f}", _dropped(of["dropped"])]
        for kind, of in result.record["kinds"].items()
    ]
    show_table(("kind", "texts", "tokens", "for a document token", "dropped"), rows)
    where = f"{result.path} was complete; nothing was written." if result.already_complete else f"Wrote {result.path}."
    per_token = result.tokens / result.record["document_tokens"]
    pieces, about = number_of(result.pieces, "text"), number_of(result.record["documents"], "document")
    say(f"{where} {pieces} of {result.tokens:,} tokens about {about}: {per_token:.1f} for a token.")
    say(f"Read some of them first, a small model errs: {result.path / EXAMPLES}")
    given = " ".join(settings.documents)
    texts = Path(result.path) / TEXTS
    say(f"Next: afterword adapt {settings.model_name_or_path} {given} {texts} --method finetune -o RUN")


def _dropped(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items()) or "–"
