"""The questions of an exam: rows of a table, read and checked, each with its options in the order in which it is asked.

The one rule: a question that was read can be asked and marked. What is left out is counted by reason.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afterword.corpus import read_table
from afterword.errors import DataError
from afterword.evaluation.exam_answers import LETTERS
from afterword.settings.exams import ExamSettings
from afterword.storage.files import shown_name

Row = tuple[str, Mapping[str, Any]]
_OPTION_LINE = re.compile(rf"^([{LETTERS}])([:.)])[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ExamItem:
    """A question with its options."""

    id: str
    """Items with the same id are not independent."""
    question: str
    right: str
    """Mark of the right option: its letter, or its number from 1 on."""
    options: tuple[str, ...] = ()
    """In the order in which they are asked; empty where they stand in the question."""
    subject: str = ""
    """What it is about."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of an exam, and how many of the file are not asked, by reason."""

    name: str
    items: tuple[ExamItem, ...]
    left_out: Mapping[str, int]

    @property
    def numbered(self) -> bool:
        """Whether options are marked by numbers, and not by letters."""
        return bool(self.items[0].options)


def load_exam(name: str, settings: ExamSettings) -> Exam:
    """The exam of a file or data set. DataError, with the place, for what is no question of it.

    Left out are rows with a missing value (`incomplete`: in any column where the options stand in the question, else in
    those that are needed), ids that are not to be asked (`excluded`), and, of questions with their options in a column,
    those that were asked before (`duplicate`). So the authors do.
    """
    left_out, seen, items = Counter[str](), set[str](), list[ExamItem]()
    for number, (where, row) in enumerate(_with_columns(read_table(settings.file), settings)):
        item = _item(where, row, number, settings)
        reason = item if isinstance(item, str) else _reason(item, settings, seen)
        if reason or isinstance(item, str):
            left_out[reason] += 1
            continue
        seen.add(item.question)
        items.append(item)
    if not items:
        counts = ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "none"
        raise DataError(f"{shown_name(settings.file)}: holds no question of {name} to ask. Left out: {counts}.")
    return Exam(name, tuple(items), dict(left_out))


def _with_columns(rows: Iterable[Row], settings: ExamSettings) -> Iterator[Row]:
    """The rows; DataError where the first has not the columns that are needed, with those that it has."""
    named = {name: getattr(settings, name) for name in type(settings).model_fields if name.endswith("_column")}
    for number, (where, row) in enumerate(rows):
        missing = [(setting, column) for setting, column in named.items() if column and column not in row]
        if missing and number == 0:
            setting, column = missing[0]
            columns = ", ".join(map(str, row))
            raise DataError(f"{where}: no column {column!r} (the columns are {columns}). Name it with {setting}.")
        yield where, row


def _reason(item: ExamItem, settings: ExamSettings, seen: set[str]) -> str:
    if item.id in settings.exclude:
        return "excluded"
    return "duplicate" if settings.options_column and item.question in seen else ""


def _item(where: str, row: Mapping[str, Any], number: int, settings: ExamSettings) -> ExamItem | str:
    question, answer = row.get(settings.question_column), row.get(settings.answer_column)
    needed = row.values() if settings.options_column is None else (question, answer, row.get(settings.options_column))
    if any(map(_is_missing, needed)):
        return "incomplete"
    if not isinstance(question, str):
        raise DataError(f"{where}: column {settings.question_column!r} must be text, not {question!r:.40}.")
    id_ = str(row.get(settings.id_column or "", number))
    subject = str(row.get(settings.subject_column or "", ""))
    if settings.options_column is None:
        asked, right = _lettered(where, question, answer, number, settings)
        return ExamItem(id_, asked, right, subject=subject)
    options, right = _numbered(where, row.get(settings.options_column), answer, number, settings)
    return ExamItem(id_, question, right, options, subject)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _lettered(where: str, question: str, answer: Any, number: int, settings: ExamSettings) -> tuple[str, str]:
    """A question that has its options in lines that begin with their letters, and the letter of the right one."""
    right = str(answer).strip().upper()
    if right not in tuple(LETTERS):
        raise DataError(f"{where}: column {settings.answer_column!r} must be one of {LETTERS}, not {answer!r:.40}.")
    if settings.shuffle_seed is None:
        return question, right
    lines = list(_OPTION_LINE.finditer(question))
    if [line[1] for line in lines] != list(LETTERS):
        problem = f"{where}: the question has not one line for each of {', '.join(LETTERS)}, such as 'A: …'"
        raise DataError(f"{problem}, so that options cannot be shuffled. Leave shuffle_seed at null.")
    order, asked = _order(len(lines), number, settings.shuffle_seed), question
    for place in reversed(range(len(lines))):
        begin, end = lines[place].span(3)
        asked = asked[:begin] + lines[order[place]][3] + asked[end:]
    return asked, LETTERS[order.index(LETTERS.index(right))]


def _numbered(
    where: str, options: Any, answer: Any, number: int, settings: ExamSettings
) -> tuple[tuple[str, ...], str]:
    """The options as they are asked, and the number of the right one, from 1 on."""
    if not isinstance(options, list | tuple) or len(options) < 2:
        raise DataError(f"{where}: column {settings.options_column!r} must be a list of two options or more.")
    texts = [str(option) for option in options]
    try:
        place = LETTERS.index(answer) if isinstance(answer, str) and answer in tuple(LETTERS) else int(answer)
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < len(texts):
        rule = f"must be the number of an option, from 0 to {len(texts) - 1}, or its letter"
        raise DataError(f"{where}: column {settings.answer_column!r} {rule}, not {answer!r:.40}.")
    order = _order(len(texts), number, settings.shuffle_seed)
    return tuple(texts[old] for old in order), str(order.index(place) + 1)


def _order(count: int, number: int, seed: int | None) -> Sequence[int]:
    """Which option stands at each place: by the seed and the row's number from 0 on, as the authors draw."""
    order = list(range(count))
    if seed is not None:
        random.Random((seed + 9973) ^ (number * 7919)).shuffle(order)
    return order
