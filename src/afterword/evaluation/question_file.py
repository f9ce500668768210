"""A file of questions with short answers, read and checked.

The one rule: a question that was read can be asked. It has an answer, and a wrong one beside it where it has choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afterword.errors import ConfigError, DataError
from afterword.evaluation.right_answers import exact_match
from afterword.evaluation.suites import SPLITS
from afterword.storage.json_lines import read_rows

_ROW = 'Each line is one object: {"question": "…", "answer": "…"}, or "answers": ["…", …], and "choices": ["…", …].'


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what counts as its answer."""

    question: str
    expected: tuple[str, ...]
    """What counts as right; the best match of any of them counts."""
    document: str | None = None
    """Id of the document that holds the answer."""
    choices: tuple[str, ...] = ()
    """Wrong answers, for choice by likelihood; none: not measured."""
    right_choice: str | None = None
    """Which of the expected answers stands among the choices; None: the first."""
    # No part of what it is known by: files that say it hold the same questions as before they did.
    split: str | None = field(default=None, repr=False, compare=False)
    """`dev`, to choose by, or `test`, to report; None: it was given no side, and is on both."""
    unit: str | None = field(default=None, repr=False, compare=False)
    """What it asks about: questions of one unit count as one in every interval. None: it is its own."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The right answer, and then the wrong ones; empty where there are none to choose from."""
        return (self.right_choice or self.expected[0], *self.choices) if self.choices else ()


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a .jsonl file, plain or .gz. DataError, with file and line, for what is not one."""
    path = Path(path)
    rows = read_rows(path, _ROW)
    if rows and ("suite" in rows[0][1] or {"prompt", "checks"} <= rows[0][1].keys()):
        raise DataError(f"{path}: is a suite, and questions are wanted. Give it as suite.{_beside(path)}")
    questions = tuple(_question(where, row) for where, row in rows)
    if not questions:
        raise DataError(f"{path}: holds no questions. {_ROW}")
    return questions


def of_split(questions: Sequence[Question], split: str) -> tuple[Question, ...]:
    """Those of a split, `dev`, `test` or `both`, and those that have none. ConfigError where there are no such."""
    found = tuple(each for each in questions if each.split is None or split in ("both", each.split))
    if not found:
        raise ConfigError(f"split: there is no question of the split {split!r}. Give another.")
    return found


def _beside(suite: Path) -> str:
    """Where the questions of a quiz are, whose suite was given for them."""
    questions = suite.with_name(f"{suite.name.removesuffix('.jsonl')}.questions.jsonl")
    return f" The questions of this quiz are in {questions}." if questions.is_file() else ""


def _question(where: str, row: dict[str, Any]) -> Question:
    question, document, answers = row.get("question"), row.get("document"), row.get("answers", row.get("answer"))
    answers, choices = answers if isinstance(answers, list) else [answers], row.get("choices") or []
    for problem, wrong in {
        '"question" is missing or not text': _as_text(question) is None,
        'no "answer", or an empty list of "answers"': answers in ([], [None]),
        "every answer must be a number, or text that is not empty": None in map(_as_text, answers),
        '"document" must be a document id in quotes, or left away': not isinstance(document, str | None),
        '"choices" must be a list of texts or numbers': not isinstance(choices, list) or None in map(_as_text, choices),
        '"unit" must be text, or left away': not isinstance(row.get("unit"), str | None),
        '"split" must be "dev" or "test", or left away': row.get("split") not in (None, *SPLITS),
    }.items():
        if wrong:
            raise DataError(f"{where}: {problem}. {_ROW}")
    expected = tuple(text for text in map(_as_text, answers) if text)
    offered = dict.fromkeys(text for text in map(_as_text, choices) if text)
    right = [choice for choice in offered if exact_match(choice, expected)]
    others = tuple(choice for choice in offered if choice not in right)
    if offered and not others:
        raise DataError(f'{where}: every one of the "choices" is a right answer. Give wrong ones beside it. {_ROW}')
    return Question(
        question=str(_as_text(question)),
        expected=expected,
        document=document,
        choices=others,
        right_choice=next(iter(right), None),
        split=row.get("split"),
        unit=row.get("unit"),
    )


def _as_text(value: Any) -> str | None:
    """Text, or a number as text; None where it is neither, or empty.

    >>> _as_text(42), _as_text(2.50), _as_text(" a "), _as_text(True), _as_text(" ")
    ('42', '2.5', ' a ', None, None)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None
