"""`afterword quiz`, and what it says when a quiz is done."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from afterword.cli.console import err, say
from afterword.cli.options import CALLED, DOCUMENTS, Overrides, command_line, told
from afterword.corpus import refuse_missing
from afterword.errors import number_of
from afterword.settings.adapt import read_settings
from afterword.settings.quiz import QuizSettings

if TYPE_CHECKING:
    from afterword.quiz.run import QuizResult


def quiz(
    model: Annotated[str, typer.Argument(help=f"Model that is to be asked. {CALLED}.")],
    documents: Annotated[list[str], typer.Argument(help=DOCUMENTS)],
    output: Annotated[str, typer.Option("--output", "-o", help="Suite to write, as quiz.jsonl.", metavar="PATH")],
    overrides: Overrides = None,
) -> None:
    """Make questions with short answers from documents, each checked with the model that they are for."""
    raw = told(None, overrides, model_name_or_path=model, documents=documents, output=output)
    settings = read_settings(raw, QuizSettings)
    refuse_missing(settings.documents)
    from afterword import models
    from afterword.quiz.run import make_quiz

    models.quiet_libraries()
    result = make_quiz(settings, command=command_line(), console=err)
    from afterword.report import write_quiz

    page = write_quiz(result.path)
    say(in_words(result))
    say(f"Wrote {result.path}, {result.questions_path.name} and {page.name}: look at it before you believe a score.")
    say(f"Next: {shlex.join(['afterword', 'adapt', model, *documents, '-o', 'RUN'])}")
    say(f"Then: afterword evaluate RUN --suite {result.path} --questions {result.questions_path}")


def in_words(result: "QuizResult") -> str:
    """What was made, and what was left out, in a sentence."""
    sides = f"dev {result.dev}, test {result.test}"
    left = ", ".join(f"{count:,} {name}" for name, count in result.left_out.items() if count)
    made = f"{number_of(result.questions, 'question')} for {number_of(result.facts, 'answer')}"
    about = number_of(result.documents, "document")
    return f"{made} about {about} ({sides}); left out: {left or 'none'}."
