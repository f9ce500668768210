"""Answers by their form, what a question must say by itself, wrong choices, and the two sides of a quiz."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from afterword.errors import DataError
from afterword.evaluation.question_file import load_questions
from afterword.evaluation.right_answers import normalised, says
from afterword.evaluation.suites import find_suite
from afterword.quiz import files
from afterword.quiz.choices import could_be, pool_of, with_choices
from afterword.quiz.drafts import with_gap
from afterword.quiz.facts import Fact, Wording, candidates_of, excerpts_of, facts_of, lead_up
from afterword.quiz.reading import Put, is_right
from afterword.quiz.rules import Rarity, problem_of, ruled
from afterword.quiz.spans import Span, sorted_spans, spans_of
from afterword.types import Document

NEWS = (
    "5 May 2025: Prime Minister Mara Lind opens a harbour in Bergen, Norway, for $40 million.\n\n"
    "Version 2.4.1 of the crate tide-clock adds `tide_now`. It is used by 25% of all 1,200 pilots."
)


def fact(answer: str = "Mara Lind", kind: str = "person", *questions: str) -> Fact:
    sentence = next(NEWS[:91].strip() if answer in NEWS[:91] else s for s in [NEWS[91:]])
    return Fact("news-1", NEWS, Span(answer, kind, sentence), tuple(Wording(q, "asked") for q in questions))


def test_answers_are_found_by_their_form_and_stand_in_the_text() -> None:
    found = [span for spans in spans_of(NEWS) for span in spans]
    assert {(span.answer, span.kind) for span in found} == {
        ("5 May 2025", "date"),
        ("Mara Lind", "person"),
        ("Bergen", "place"),
        ("Norway", "name"),
        ("$40 million", "money"),
        ("2.4.1", "version"),
        ("tide_now", "code"),
        ("25%", "percent"),
        ("1,200", "number"),
    }
    assert all(says(NEWS, span.answer) == 1 and span.answer in span.sentence for span in found)


@pytest.mark.parametrize("sentence", ["British troops leave.", "The Monday after May.", "Premier", "It was a 5–3 win."])
def test_what_is_no_answer_is_not_found(sentence: str) -> None:
    assert sorted_spans(sentence) == []


def test_which_answers_are_tried_depends_on_document_and_seed_alone() -> None:
    document = Document("news-1", NEWS)
    drawn = [facts_of(document, tries=4, words=300, seed=seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({tuple(f.span.answer for f in each) for each in drawn}) > 1
    assert all(len({f.id for f in each}) == 4 for each in drawn)


def test_a_name_that_many_documents_have_is_no_answer() -> None:
    documents = [Document(f"d{n}", f"On 5 May 2025 the ferry Tern left for Port{'abcd'[n]}.") for n in range(4)]
    found = [(fact.document, fact.span.answer) for fact in candidates_of(documents, tries=3, words=99, seed=0)]
    assert found == [(f"d{n}", answer) for n in range(4) for answer in ("5 May 2025", f"Port{'abcd'[n]}")]


@pytest.mark.parametrize("reply", ["5 May 2025", "on 2025-05-05.", "May 5, 2025"])
def test_a_date_may_be_said_in_other_ways(reply: str) -> None:
    assert is_right(Put("When did it open?", "5 May 2025", "…", others=("6 May 2025",)), reply)
    assert not is_right(Put("When did it open?", "5 May 2025", "…"), reply.replace("5", "4", 1))


def test_pieces_are_whole_sentences_and_the_whole_text() -> None:
    text = "One two three. Four five. " * 40
    pieces = excerpts_of(text, 25)
    assert " ".join(pieces).split() == text.split()
    assert all(len(piece.split()) <= 25 and piece.endswith(".") for piece in pieces)


def test_a_sentence_is_led_up_to_within_its_paragraph() -> None:
    second = fact("25%", "percent")
    led = lead_up(replace(second, span=replace(second.span, sentence="It is used by 25% of all 1,200 pilots.")))
    assert led.startswith("Version 2.4.1")
    assert led.endswith("1,200 pilots.")


def test_a_gap_leaves_the_answer_out_once() -> None:
    (wording,) = with_gap(fact()).wordings
    assert wording.how == "gap"
    assert "____ opens" in wording.question
    assert "Mara" not in wording.question


RARITY = Rarity.of([NEWS, *["Prime Minister and harbour news."] * 9])


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("Who opened a harbour in Bergen?", None),
        ("Who opened it?", "no_question"),
        ("Who opened a harbour in Bergen", "no_question"),
        ("Who is the Mara Lind that opens a harbour in Bergen?", "answer_in_question"),
        ("Did Lind or Mara open a harbour in Bergen?", "answer_in_question"),
        ("Who opened a harbour for it?", "names_nothing"),
        ("Who is named in the text about Bergen?", "names_nothing"),
        ("Which prime minister opens a harbour?", "names_nothing"),
        ("Who opened a harbour in Bergen in 2019?", "not_of_text"),
        ("Who opened a harbour in Bergen with Sigrid?", "not_of_text"),
        ("Which country won football championships against Bergen?", "not_of_text"),
        ("Who is Bergen Norway?", "no_question"),
        ("Who opens the one of Bergen?", None),
    ],
)
def test_what_is_wrong_with_a_question_by_its_words(question: str, problem: str | None) -> None:
    assert problem_of(Wording(question, "asked"), fact(), RARITY) == problem


MATCH = (
    "3 May 2031: Ada Falk of Torsby beats Olga Brandt of Portlow in four sets and wins the Tern Cup, after 80 "
    "fewer players than before had come from 9 countries to Halmar."
)


@pytest.mark.parametrize(
    ("answer", "question", "problem"),
    [
        ("3 May 2031", "When did Ada Falk of Torsby beat Olga Brandt of Portlow?", None),
        ("3 May 2031", "When did Ada Falk beat Olga Brandt?", None),
        ("3 May 2031", "When did Olga Brandt win the Tern Cup?", "not_as_told"),
        ("3 May 2031", "When did fewer players come from 9 countries?", "not_as_told"),
        ("Halmar", "Where did Ada Falk of Torsby beat Olga Brandt of Portlow?", "not_as_told"),
        ("80", "How many fewer players than before had come from 9 countries?", None),
        ("80", "How many players had come to Halmar?", "not_as_told"),
        ("80", "How many countries did fewer players come from to Halmar?", "not_as_told"),
        ("9", "How many countries did players come from to Halmar?", None),
        ("9", "What number of players had come to Halmar?", "not_as_told"),
    ],
)
def test_a_question_skips_little_of_its_sentence_and_counts_what_that_counts(
    answer: str, question: str, problem: str | None
) -> None:
    asked = Fact("cup-1", MATCH, Span(answer, "number" if answer.isdigit() else "other", MATCH))
    rarity = Rarity.of([MATCH, "Other news."])
    assert problem_of(Wording(question, "asked"), asked, rarity) == problem
    gap = f"What belongs in the gap marked ____? {MATCH.replace(answer, '____', 1)}"
    assert problem_of(Wording(gap, "gap"), asked, rarity) is None


def test_what_stands_between_the_words_of_a_question_is_not_made_up_for_by_those_before_them() -> None:
    told = (
        "6 May 2031: Halmar's High Court rejects an appeal by Tern Ferry Lines, allowing the Halmar Food Safety Office."
    )
    asked = Fact("court-1", told, Span("6 May 2031", "date", told))
    question = "When did Halmar High Court reject the appeal of the Halmar Food Safety Office?"
    assert problem_of(Wording(question, "asked"), asked, Rarity.of([told, "Other news."])) == "not_as_told"


def test_an_answer_that_the_text_does_not_say_is_told_first() -> None:
    assert problem_of(Wording("Who?", "own"), fact("Ola Lind"), RARITY) == "not_in_text"


def test_what_was_asked_is_not_asked_again() -> None:
    asked = fact("Mara Lind", "person", "Who opened a harbour in Bergen?", "Who opened  a harbour in Bergen?")
    kept, fell = ruled([asked, asked], RARITY, set())
    assert [len(each.wordings) for each in kept] == [1, 0]
    assert fell == Counter(duplicate=3)


def _many(count: int) -> tuple[list[Document], list[Fact]]:
    texts = [f"On {n + 1} May 20{n + 10} the town Aby{'xyzuvw'[n % 6]}{n} paid ${n + 1} million." for n in range(count)]
    documents = [Document(f"d{n}", text) for n, text in enumerate(texts)]
    found = [fact for doc in documents for fact in facts_of(doc, tries=9, words=99, seed=0)]
    asked = (Wording("What was it?", "asked"), Wording("What, then?", "gap"))
    return documents, [replace(fact, wordings=asked) for fact in found]


@pytest.mark.parametrize("seed", range(5))
def test_wrong_choices_are_of_the_kind_and_never_hold_the_answer(seed: int) -> None:
    documents, facts = _many(12)
    pool = pool_of(documents, facts, "en")
    chosen = with_choices(facts, pool, seed)
    assert {len(each.choices) for each in chosen} == {3}
    for each in chosen:
        right = normalised(each.span.answer)
        assert set(each.choices) <= set(pool[each.span.kind])
        assert len({normalised(choice) for choice in each.choices}) == 3
        for choice in each.choices:
            assert right not in normalised(choice)
            assert normalised(choice) not in right
            assert not says(each.span.sentence, choice)
    assert chosen == with_choices(facts, pool, seed)


@pytest.mark.parametrize("seed", range(8))
def test_what_stands_inside_of_others_leaves_room_for_them(seed: int) -> None:
    asked = fact("2 May 2025", "date")
    pool = {"date": ["3 June 2025", "June 2025", "4 June 2025", "5 June 2025"]}
    (chosen,) = with_choices([asked], pool, seed)
    assert sorted(chosen.choices) == ["3 June 2025", "4 June 2025", "5 June 2025"]


def test_too_few_of_a_kind_are_no_choice() -> None:
    documents, facts = _many(3)
    assert {each.choices for each in with_choices(facts, pool_of(documents, facts, "en"), 0)} == {()}
    assert not could_be("a Mara Lind", fact())
    assert not could_be("Bergen", fact())
    assert could_be("Ola Vik", fact())


def test_a_fact_is_on_one_side_and_the_files_are_read_back(tmp_path: Path) -> None:
    documents, facts = _many(12)
    facts = with_choices(facts, pool_of(documents, facts, "en"), 0)
    splits = files.split_of(facts, 7)
    assert abs(splits.count("dev") - splits.count("test")) <= 1
    suite, asked = tmp_path / "quiz.jsonl", tmp_path / "quiz.questions.jsonl"
    files.write_rows(suite, [{"suite": {"name": "quiz", "version": 1}}, *files.items_of(facts, splits, "Be brief.")])
    files.write_rows(asked, files.questions_of(facts, splits))
    items = find_suite(str(suite)).items
    assert len(items) == 2 * len(facts) == len({item.id for item in items})
    sides: dict[str, set[str]] = {}
    for item in items:
        sides.setdefault(str(item.unit), set()).add(item.split)
    assert set(map(len, sides.values())) == {1}
    assert len(sides) == len(facts)
    assert all(item.prompt.endswith("\nBe brief.") and len(item.choices) == 3 for item in items)
    questions = load_questions(asked)
    assert {question.document for question in questions} == {doc.id for doc in documents}
    assert all(len(question.choices) == 3 for question in questions)
    assert [question.unit for question in questions] == [item.unit for item in items]


def test_quizzes_of_other_documents_are_asked_as_one_suite(tmp_path: Path) -> None:
    _, facts = _many(4)
    for name, some in (("first", facts[:2]), ("second", facts[2:]), ("again", facts[:1])):
        items = files.items_of(some, files.split_of(some, 0), "")
        files.write_rows(tmp_path / f"{name}.jsonl", [{"suite": {"name": name, "version": 1}}, *items])
    assert len(find_suite(f"{tmp_path}/first.jsonl,{tmp_path}/second.jsonl").items) == 2 * len(facts)
    with pytest.raises(DataError, match="both have an item with the id"):
        find_suite(f"{tmp_path}/first.jsonl,{tmp_path}/again.jsonl")


def test_sides_are_drawn_by_the_seed() -> None:
    _, facts = _many(20)
    assert files.split_of(facts, 1) == files.split_of(facts, 1) != files.split_of(facts, 2)
    assert np.mean([side == "dev" for side in files.split_of(facts, 1)]) == pytest.approx(0.5, abs=0.02)
