"""What the demo of the real model teaches and asks: that it holds together, and that nothing leaks."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from afterword.demo import ferry_lessons
from afterword.demo.ferry_lessons import (
    OTHERWISE,
    TOLD,
    Document,
    Question,
    load_documents,
    load_kept,
    load_questions,
    open_book_items,
    options,
    suite_items,
)
from afterword.demo.lessons import OPEN_BOOK
from afterword.evaluation.checks import passes
from afterword.evaluation.right_answers import normalised, says, words_of
from afterword.evaluation.suites import load_suite

DOCUMENTS = {document.number: document for document in load_documents()}
QUESTIONS = load_questions()
KEPT = load_kept()
ITEMS = suite_items(QUESTIONS, KEPT)


def test_there_are_fifteen_documents_sixty_questions_and_fifty_things_to_keep() -> None:
    assert (len(DOCUMENTS), len(QUESTIONS), len(KEPT)) == (15, 60, 50)
    assert sorted(DOCUMENTS) == list(range(1, 16))
    assert len({question.id for question in QUESTIONS}) == 60
    assert len({each.prompt for each in KEPT}) == 50


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=lambda document: document.file)
def test_a_document_has_a_title_whose_it_is_and_a_length_to_read(document: Document) -> None:
    assert document.text.startswith(f"# {document.title}\n")
    assert re.search(r"202[67]", document.source)
    assert 150 <= len(document.text.split()) <= 350


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_every_answer_stands_in_each_of_its_documents_and_no_wrong_one_is_right(question: Question) -> None:
    right = ferry_lessons._said(question.answer, *question.also)
    assert len(set(question.documents)) >= 2
    for number in question.documents:
        assert any(says(DOCUMENTS[number].text, answer) for answer in right), number
    assert len({normalised(text) for text in (question.answer, *question.wrong)}) == 4
    check = {"kind": "contains", "values": right}
    assert passes(question.answer, check)
    assert not [wrong for wrong in question.wrong if passes(wrong, check)]
    assert len(question.answer.split()) <= 4


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_a_held_out_wording_is_another_question_that_does_not_say_the_answer(question: Question) -> None:
    assert normalised(question.question) != normalised(question.other)
    for wording in (question.question, question.other):
        assert wording.endswith("?")
        assert not [answer for answer in (question.answer, *question.also) if says(wording, answer)]


def test_splits_are_disjoint_by_fact_and_other_words_are_asked_on_test_only() -> None:
    asked = {(item.unit, item.split) for item in ITEMS if item.part == "learning"}
    assert Counter(split for _, split in asked) == {"dev": 24, "test": 36}
    assert len({unit for unit, _ in asked}) == 60
    assert {item.split for item in ITEMS if item.skill == OTHERWISE} == {"test"}
    assert Counter(item.skill for item in ITEMS if item.part == "learning") == {TOLD: 60, OTHERWISE: 36}
    kept = Counter((item.skill, item.split) for item in ITEMS if item.part == "retention")
    assert {skill for skill, _ in kept} == {"facts", "sense", "reading", "instructions"}
    assert all(kept[skill, "dev"] < kept[skill, "test"] for skill, _ in list(kept))


def test_nothing_that_the_documents_tell_is_asked_of_what_must_be_kept() -> None:
    names = set()
    for document in DOCUMENTS.values():
        # Capital letters inside a sentence: names of people, places and things.
        names |= words_of(" ".join(re.findall(r"(?<=[a-z,] )[A-Z][a-zé]+", document.text)))
    invented = {"odalind", "quillmouth", "sarnholt", "tessary", "amadi", "okoro", "kestowe", "halvane", "marlhaven"}
    assert invented <= names
    for each in KEPT:
        text = " ".join((each.prompt, each.answer, *each.wrong))
        assert not words_of(text) & invented, each.prompt
        assert not [question.id for question in QUESTIONS if len(question.answer) > 7 and says(text, question.answer)]


def test_the_right_answer_has_no_place_of_its_own_and_the_same_one_every_time() -> None:
    places = Counter(options(question).index(question.answer) for question in QUESTIONS)
    assert sorted(places) == [0, 1, 2, 3]
    assert max(places.values()) <= 24
    assert [options(question) for question in QUESTIONS] == [options(question) for question in load_questions()]


def test_the_open_book_holds_a_document_that_tells_the_answer() -> None:
    items = open_book_items(QUESTIONS, list(DOCUMENTS.values()))
    told = {item.unit: item for item in ITEMS if item.skill == TOLD and item.split == "test"}
    assert [item.unit for item in items] == list(told)
    assert {item.skill for item in items} == {OPEN_BOOK}
    for item in items:
        assert item.prompt.endswith(told[item.unit].prompt)
        text = item.prompt.removesuffix(told[item.unit].prompt)
        assert any(says(text, value) for value in item.checks[0]["values"])


def test_the_files_are_suites_that_can_be_asked_and_the_documents(tmp_path: Path) -> None:
    lessons = ferry_lessons.write_ferry(tmp_path / "world", {})
    assert (lessons.count, len(lessons.to_read)) == (15, 15)
    assert load_suite(lessons.path("suite")).items == ITEMS
    assert len(load_suite(lessons.path("open_book")).items) == 36
    assert len(list(lessons.documents.glob("*.md"))) == 15
    assert load_suite(lessons.path("suite")).items[0].prompt.endswith(" Answer briefly.")
