"""The ferry as a demo teaches it to a real model: documents to read, questions about them, and what must be kept.

All of it is written by hand, in `ferry/`; it follows from a seed who is asked on which split. The one rule: a fact is
asked on one split only, in all its wordings.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from afterword.demo.lessons import BRIEFLY, OPEN_BOOK, Lessons, Told
from afterword.evaluation.suites import Item, Suite
from afterword.report.demo_page import Readable
from afterword.settings.yaml_files import load_yaml

FERRY = Path(__file__).with_name("ferry")
SEED = 0
DEV_FRAC = 0.4
"""Of the facts, and of what must be kept in every skill: the rest is test."""
TOLD, OTHERWISE = "told", "told_in_other_words"
"""Skills of what is learned: as the questions were written first, and in other words."""
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
    return TypeAdapter(list[Question]).validate_python(load_yaml(folder / "questions.yaml")["questions"])


def load_kept(folder: Path = FERRY) -> list[Kept]:
    """What must be kept."""
    return TypeAdapter(list[Kept]).validate_python(load_yaml(folder / "kept.yaml")["kept"])


def suite_items(questions: Sequence[Question], kept: Sequence[Kept]) -> tuple[Item, ...]:
    """The items of the suite, in the order of the files."""
    items, dev = list[Item](), drawn_dev(len(questions))
    for place, question in enumerate(questions):
        split = "dev" if place in dev else "test"
        items.append(_learning_item(question, TOLD, split, question.question))
        if split == "test":
            items.append(_learning_item(question, OTHERWISE, split, question.other))
    for skill in dict.fromkeys(each.skill for each in kept):
        own = [each for each in kept if each.skill == skill]
        dev = drawn_dev(len(own))
        items += [_kept_item(each, place, "dev" if place in dev else "test") for place, each in enumerate(own)]
    return tuple(items)


def open_book_items(questions: Sequence[Question], documents: Sequence[Document]) -> tuple[Item, ...]:
    """The questions of the test split, each after the shortest document that tells its answer: what reading gives."""
    texts, dev = {document.number: document.text for document in documents}, drawn_dev(len(questions))
    asked = [question for place, question in enumerate(questions) if place not in dev]
    before = [min((texts[number] for number in question.documents), key=len) for question in asked]
    return tuple(
        _learning_item(question, OPEN_BOOK, "test", f"{text}\n{question.question}")
        for question, text in zip(asked, before, strict=True)
    )


def drawn_dev(count: int) -> set[int]:
    """Which of so many are asked on the dev split, by the seed.

    >>> sorted(drawn_dev(5)), len(drawn_dev(60))
    ([2, 4], 24)
    """
    return {int(place) for place in np.random.default_rng(SEED).permutation(count)[: round(DEV_FRAC * count)]}


def options(question: Question) -> tuple[str, ...]:
    """The four answers of a question in an order that its name and the seed decide."""
    four = (question.answer, *question.wrong)
    return tuple(sorted(four, key=lambda text: hashlib.sha256(f"{SEED} {question.id} {text}".encode()).digest()))


def _learning_item(question: Question, skill: str, split: str, prompt: str) -> Item:
    return Item(
        id=f"{question.id}/{skill}",
        part="learning",
        skill=skill,
        split=split,
        prompt=f"{prompt} {BRIEFLY}",
        answer=question.answer,
        checks=({"kind": "contains", "values": _said(question.answer, *question.also)},),
        choices=tuple(text for text in options(question) if text != question.answer),
        unit=question.id,
    )


def _kept_item(kept: Kept, place: int, split: str) -> Item:
    checks = kept.checks or ({"kind": "contains", "values": _said(kept.answer)},)
    name = f"{kept.skill}/{place}"
    return Item(name, "retention", kept.skill, split, kept.prompt, kept.answer, checks, choices=kept.wrong)


def _said(*answers: str) -> list[str]:
    """What must be said of an answer: neither its article nor its full stop.

    >>> _said("the Dry Anchor", "It melts.")
    ['Dry Anchor', 'It melts']
    """
    said = [answer.rstrip(".") for answer in answers]
    return [next((s.removeprefix(a) for a in _ARTICLES if s.startswith(a)), s) for s in said]


def write_ferry(folder: Path, sizes: Mapping[str, int]) -> Lessons:
    """Write documents, suite.jsonl and open_book.jsonl into a folder that is not there yet. It has one size."""
    documents, questions, kept = load_documents(), load_questions(), load_kept()
    assert not sizes, "the ferry has one size"
    lessons = Lessons(
        documents=folder / "documents",
        count=len(documents),
        suite=Suite(suite_items(questions, kept), name="ferry"),
        open_book=Suite(open_book_items(questions, documents), name="ferry-open-book"),
        told={
            f"{question.id}/{skill}": Told(options(question), question.documents)
            for question in questions
            for skill in (TOLD, OTHERWISE)
        },
        to_read=tuple(_readable(document) for document in documents),
    )
    lessons.documents.mkdir(parents=True)
    for document in documents:
        shutil.copyfile(FERRY / "documents" / document.file, lessons.documents / document.file)
    lessons.write_suites()
    return lessons


def _readable(document: Document) -> Readable:
    """Without the title and the line that says whose text it is: the page has them."""
    paragraphs = [part.strip() for part in document.text.split("\n\n") if part.strip()]
    return Readable(number=document.number, title=document.title, source=document.source, paragraphs=paragraphs[2:])
