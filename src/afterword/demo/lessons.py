"""What the demo of the real model teaches and asks: documents to read, questions about them, and what must be kept.

All of it is written by hand, in `ferry/`; it follows from a seed who is asked on which split. The one rule: a fact is
asked on one split only, in all its wordings.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afterword.models import replace_file
from afterword.settings.yaml_files import load_yaml

FERRY = Path(__file__).with_name("ferry")
SEED = 0
DEV_FRAC = 0.4
"""Of the facts, and of what must be kept in every skill: the rest is test."""
BRIEFLY = "Answer briefly."
TOLD, OTHERWISE, OPEN_BOOK = "told", "told_in_other_words", "open_book"
"""Skills of what is learned: as the questions were written first, in other words, and with the document before them."""
_ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True, slots=True)
class Document:
    """One of the texts that are taught."""

    number: int
    """By which the questions name it."""
    file: str
    title: str
    source: str
    """Who wrote it, and when."""
    text: str
    """The whole file."""


@dataclass(frozen=True, slots=True)
class Question:
    """A fact as it is asked."""

    id: str
    question: str
    other: str
    """In other words: on the test split only."""
    answer: str
    wrong: tuple[str, ...]
    """Of the same kind, for the choice of four."""
    documents: tuple[int, ...]
    """Numbers of those that tell it."""
    also: tuple[str, ...] = ()
    """Other right ways to say the answer."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the model could do before, and should do after."""

    skill: str
    prompt: str
    answer: str
    wrong: tuple[str, ...] = ()
    """Of the same kind, where it is a choice of four."""
    checks: tuple[Mapping[str, Any], ...] = ()


def load_documents(folder: Path = FERRY) -> list[Document]:
    """The documents by their numbers. A title, a line that says whose text it is, and the text."""
    return [_document(file) for file in sorted((folder / "documents").glob("*.md"))]


def _document(file: Path) -> Document:
    text = file.read_text(encoding="utf-8")
    title, source = [line for line in text.splitlines() if line][:2]
    return Document(int(file.name.partition("-")[0]), file.name, title.removeprefix("# "), source, text)


def load_questions(folder: Path = FERRY) -> list[Question]:
    """The questions, one for each fact."""
    return [Question(**_tuples(row)) for row in load_yaml(folder / "questions.yaml")["questions"]]


def load_kept(folder: Path = FERRY) -> list[Kept]:
    """What must be kept."""
    return [Kept(**_tuples(row)) for row in load_yaml(folder / "kept.yaml")["kept"]]


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def suite_rows(questions: Sequence[Question], kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """The items of the suite, in the order of the files; see `afterword.evaluation.suites.Item`."""
    rows, dev = [], drawn_dev(len(questions))
    for place, question in enumerate(questions):
        split = "dev" if place in dev else "test"
        rows.append(_learning_row(question, TOLD, split, question.question))
        if split == "test":
            rows.append(_learning_row(question, OTHERWISE, split, question.other))
    for skill in dict.fromkeys(each.skill for each in kept):
        own = [each for each in kept if each.skill == skill]
        dev = drawn_dev(len(own))
        rows += [_kept_row(each, place, "dev" if place in dev else "test") for place, each in enumerate(own)]
    return rows


def open_book_rows(questions: Sequence[Question], documents: Sequence[Document]) -> list[dict[str, Any]]:
    """The questions of the test split, each after the shortest document that tells its answer: what reading gives."""
    texts, rows, dev = {document.number: document.text for document in documents}, [], drawn_dev(len(questions))
    for place, question in enumerate(questions):
        if place not in dev:
            text = min((texts[number] for number in question.documents), key=len)
            rows.append(_learning_row(question, OPEN_BOOK, "test", f"{text}\n{question.question}"))
    return rows


def drawn_dev(count: int) -> set[int]:
    """Which of so many are asked on the dev split, by the seed.

    >>> sorted(drawn_dev(5)), len(drawn_dev(60))
    ([2, 4], 24)
    """
    return {int(place) for place in np.random.default_rng(SEED).permutation(count)[: round(DEV_FRAC * count)]}


def options(question: Question) -> list[str]:
    """The four answers of a question in an order that its name and the seed decide."""
    four = (question.answer, *question.wrong)
    return sorted(four, key=lambda text: hashlib.sha256(f"{SEED} {question.id} {text}".encode()).digest())


def _learning_row(question: Question, skill: str, split: str, prompt: str) -> dict[str, Any]:
    choices = [text for text in options(question) if text != question.answer]
    checks = [{"kind": "contains", "values": _said(question.answer, *question.also)}]
    row = {"id": f"{question.id}/{skill}", "part": "learning", "skill": skill, "split": split, "unit": question.id}
    return row | {"prompt": f"{prompt} {BRIEFLY}", "answer": question.answer, "choices": choices, "checks": checks}


def _kept_row(kept: Kept, place: int, split: str) -> dict[str, Any]:
    checks = list(kept.checks) or [{"kind": "contains", "values": _said(kept.answer)}]
    row = {"id": f"{kept.skill}/{place}", "part": "retention", "skill": kept.skill, "split": split}
    row |= {"prompt": kept.prompt, "answer": kept.answer, "checks": checks}
    return row | ({"choices": list(kept.wrong)} if kept.wrong else {})


def _said(*answers: str) -> list[str]:
    """What must be said of an answer: neither its article nor its full stop.

    >>> _said("the Dry Anchor", "It melts.")
    ['Dry Anchor', 'It melts']
    """
    said = [answer.rstrip(".") for answer in answers]
    return [next((s.removeprefix(a) for a in _ARTICLES if s.startswith(a)), s) for s in said]


def write_lessons(folder: Path) -> dict[str, int]:
    """Write documents, suite.jsonl and open_book.jsonl into a folder; how many there are of each."""
    documents, questions, kept = load_documents(), load_questions(), load_kept()
    (folder / "documents").mkdir(parents=True)
    for document in documents:
        shutil.copyfile(FERRY / "documents" / document.file, folder / "documents" / document.file)
    _write(folder / "suite.jsonl", "ferry", suite_rows(questions, kept))
    _write(folder / "open_book.jsonl", "ferry-open-book", open_book_rows(questions, documents))
    return {"documents": len(documents), "questions": len(questions), "kept": len(kept)}


def _write(file: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [{"suite": {"name": name, "version": 1}}, *rows]
    replace_file(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
