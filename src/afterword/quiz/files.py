"""The files of a quiz: a suite for `--suite`, and the same questions for `--questions`, with their documents."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from afterword.errors import CheckpointError
from afterword.evaluation.right_answers import says
from afterword.evaluation.suites import SPLITS
from afterword.quiz.facts import Fact
from afterword.quiz.spans import ways_to_say
from afterword.storage.atomic import replace_file
from afterword.storage.records import read_record

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def split_of(facts: Sequence[Fact], seed: int) -> list[str]:
    """`dev` or `test` for every fact, half of them each, by draw: all wordings of a fact are on one side."""
    order = np.random.default_rng(seed).permutation(len(facts))
    return [SPLITS[int(place) % 2] for place in np.argsort(order)]


def items_of(facts: Sequence[Fact], splits: Sequence[str], instruction: str) -> list[dict[str, Any]]:
    """A row of the suite for every wording: `skill` is the kind of answer, `unit` the fact.

    A reply that says one of the choices beside the answer is wrong, unless the question names it. An `id` follows from
    the fact, so that several quizzes can be asked as one suite.
    """
    return [
        {
            "id": f"{sha256(fact.id.encode()).hexdigest()[:10]}{LETTERS[place]}",
            "part": "learning",
            "skill": fact.span.kind,
            "split": split,
            "prompt": f"{wording.question}\n{instruction}" if instruction else wording.question,
            "answer": fact.span.answer,
            "checks": [
                {"kind": "contains", "values": ways_to_say(fact.span.answer)},
                *({"kind": "excludes", "value": other} for other in fact.choices if not says(wording.question, other)),
            ],
            **({"choices": list(fact.choices)} if fact.choices else {}),
            "unit": fact.id,
        }
        for fact, split in zip(facts, splits, strict=True)
        for place, wording in enumerate(fact.wordings)
    ]


def questions_of(facts: Sequence[Fact], splits: Sequence[str]) -> list[dict[str, Any]]:
    """A row of the file of questions for every wording: with the id of the document, asked open book too.

    `unit` is the fact, as in the suite: its wordings count as one in every interval.
    """
    return [
        {
            "question": wording.question,
            "answers": ways_to_say(fact.span.answer),
            **({"choices": [fact.span.answer, *fact.choices]} if fact.choices else {}),
            "document": fact.document,
            "split": split,
            "unit": fact.id,
            "fact": fact.span.sentence,
        }
        for fact, split in zip(facts, splits, strict=True)
        for wording in fact.wordings
    ]


def beside(suite: Path, ending: str) -> Path:
    """A file next to the suite: quiz.jsonl → quiz.html.

    >>> str(beside(Path("a/quiz.jsonl"), "questions.jsonl"))
    'a/quiz.questions.jsonl'
    """
    return suite.with_name(f"{suite.name.removesuffix('.jsonl')}.{ending}")


def not_of_a_quiz(suite: Path) -> Path | None:
    """What a quiz of this name would write over and did not write: beside the files of a quiz stands its record."""
    record = beside(suite, "json")
    there = next((path for path in (suite, beside(suite, "questions.jsonl"), record) if path.exists()), None)
    if there is None:
        return None
    try:
        ours = record.is_file() and {"filters", "questions", "settings"} <= read_record(record).keys()
    except CheckpointError:
        ours = False
    return None if ours else there


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
