"""What is found, by hand; and that what the search missed is told apart from what the reader missed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_tokenizer, random_llama

from afterword.data import SpecialTokens
from afterword.errors import ConfigError, DataError
from afterword.evaluation import evaluate
from afterword.evaluation.measure import Inputs, Models
from afterword.evaluation.measures import MEASURES
from afterword.evaluation.question_costs import answering_flops
from afterword.evaluation.question_file import Question
from afterword.evaluation.questions import build_prompt, closed_book
from afterword.evaluation.retrieval import distinct, index_of
from afterword.evaluation.retrieved import retrieved_questions, retrieved_suite
from afterword.evaluation.suites import Item, Suite
from afterword.models import size_of
from afterword.models.generation import prompt_ids
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Document

DOCUMENTS = [
    Document("bakery", "Mara Lind founded the bakery. It opens at six."),
    Document("ferry", "The ferry to Oslo leaves at noon.", title="Timetable"),
]
QUESTIONS = [
    Question("Who founded the bakery?", ("Mara Lind",), "bakery", ("Ola Nord",)),
    Question("When does the ferry leave?", ("noon",), "bakery"),
    Question("Quando?", ("never",), None),
]


@pytest.fixture(scope="module")
def models() -> Models:
    model = random_llama(vocab_size=260, hidden_size=16, intermediate_size=16)
    return Models(model.eval(), None, byte_tokenizer(None), SpecialTokens((), 1), 256)


def _inputs(documents: Any = DOCUMENTS, **settings: Any) -> Inputs:
    asked = EvaluateSettings(**{"retrieve": 1, "excerpt_tokens": 64, "question_instruction": "", **settings})
    return Inputs("model", asked, {"documents": documents}, QUESTIONS)


def _scores(models: Models, inputs: Inputs) -> dict[str, Any]:
    return {s.metric: s for s in MEASURES["questions/retrieved"].scores(retrieved_questions(models, inputs))}


def test_a_score_is_that_of_bm25_by_hand(models: Models):
    # Two excerpts of two words, one has the word once: idf ln(1 + 1.5 / 1.5), and 1 / (1 + 1.5).
    index = index_of(models, _inputs([Document("1", "red boat"), Document("2", "blue car")]))
    assert index.scores.get_scores(["red"]).tolist() == pytest.approx([math.log(2) / 2.5, 0.0])


def test_the_best_stands_first_and_what_shares_no_word_is_not_found(models: Models):
    index = index_of(models, _inputs())
    assert [each.document for each in index.find("At six the BAKERY opens?", 2)] == ["bakery", "ferry"]
    assert [each.document for each in index.find("At six the BAKERY opens?", 1)] == ["bakery"]
    assert [each.document for each in index.find("which timetable", 9)] == ["ferry"], "a title is searched too"
    assert index.find("Quando", 2) == index.find("?", 2) == ()
    twins = index_of(models, _inputs([Document("b", "one boat"), Document("a", "two boat")]))
    assert [each.document for each in twins.find("boat", 1)] == ["b"], "of equals the earlier"


def test_a_long_document_is_cut_at_sentences_and_nothing_of_it_is_lost(models: Models):
    sentences = [f"The boat number {n} is red." for n in range(7)]
    index = index_of(models, _inputs([Document("long", " ".join(sentences))], excerpt_tokens=60))
    texts = [each.text for each in index.excerpts]
    assert texts == [" ".join(sentences[i : i + 2]) for i in range(0, 7, 2)]
    assert all(len(text) <= 60 for text in texts), "a byte is a token here"


def test_a_text_is_searched_once_and_no_two_documents_have_one_id():
    more = [Document("bakery", DOCUMENTS[0].text), Document("bakery", "Another bakery."), Document("x", "Else.")]
    found = distinct([DOCUMENTS, more])  # type: ignore[list-item]
    assert [(each.id, each.text) for each in found] == [
        ("bakery", DOCUMENTS[0].text),
        ("ferry", DOCUMENTS[1].text),
        ("bakery#2", "Another bakery."),
        ("x", "Else."),
    ]


def test_documents_without_a_word_are_refused(models: Models):
    with pytest.raises(DataError, match="no word to search"):
        index_of(models, _inputs([Document("dots", "… …")]))


def test_what_the_search_found_is_told_apart_from_what_was_read(models: Models):
    found = retrieved_questions(models, _inputs())
    rows = found.answers
    # The third names no document and finds nothing: it is asked alone, and is in no hit rate.
    assert [row["document_found"] for row in rows] == [True, False, None]
    assert [[each["document"] for each in row["excerpts"]] for row in rows] == [["bakery"], ["ferry"], []]
    first, alone = DOCUMENTS[0].text, build_prompt(models.tokenizer, QUESTIONS[2].question)
    assert rows[0]["prompt"] == build_prompt(models.tokenizer, QUESTIONS[0].question, first)
    assert rows[2]["prompt"] == alone
    scores = _scores(models, _inputs())
    assert (scores["document_found_frac"].n, scores["document_found_frac"].before.value) == (2, 0.5)
    # The excerpts say Mara Lind and noon; nothing says never.
    assert scores["answer_found_frac"].before.value == pytest.approx(2 / 3)
    counts = {name: scores[name].n for name in scores if "_where_" in name}
    assert counts == {"said_where_found_frac": 1, "choice_correct_where_found_frac": 1, "said_where_missed_frac": 1}


def test_one_more_excerpt_finds_what_one_missed(models: Models):
    scores = _scores(models, _inputs(retrieve=2))
    assert scores["document_found_frac"].before.value == 1.0
    assert "said_where_missed_frac" not in scores


def test_what_does_not_fit_is_left_out_and_counted(models: Models):
    found = retrieved_questions(replace(models, max_length=100), _inputs(excerpt_tokens=32))
    assert found.details["left_out"] == {"too_long": 2}
    assert [row["question"] for row in found.answers] == ["Quando?"]


def test_an_answer_costs_what_its_tokens_cost(models: Models):
    alone, retrieved = closed_book(models, _inputs()), retrieved_questions(models, _inputs())
    costs = [{each.metric: each.after for each in found.values} for found in (alone, retrieved)]
    tokens = [len(prompt_ids(models.tokenizer, row["prompt"])) for row in retrieved.answers]
    assert costs[1]["prompt_tokens"] == tokens
    # A byte is a token: what stands before a question, and the blank line.
    shown = [len(DOCUMENTS[0].text) + 2, len(DOCUMENTS[1].text) + 2, 0]
    assert [n + more for n, more in zip(costs[0]["prompt_tokens"], shown, strict=True)] == tokens
    size = size_of(models.reference)
    for gflops, prompt in zip(costs[1]["answer_gflops"], tokens, strict=True):
        assert answering_flops(size, prompt, 1) <= gflops * 1e9 <= answering_flops(size, prompt, 48)
    assert {score.metric for score in retrieved.scores} == {"answer_seconds", "index_seconds"}


def test_closed_book_says_nothing_of_costs_where_nothing_is_retrieved(models: Models):
    found = closed_book(models, _inputs(retrieve=None))
    assert not found.scores
    assert not [each for each in found.values if each.metric == "prompt_tokens"]


def test_a_suite_is_asked_with_what_was_found_under_a_name_of_its_own(models: Models):
    about = {
        "skill": "direct",
        "split": "dev",
        "checks": ({"kind": "contains", "value": "Mara Lind"},),
        "unit": "founder",
    }
    items = (
        Item("taught", "learning", prompt="Who founded the bakery?", answer="Mara Lind", **about),
        Item("kept", "retention", prompt="Quando?", answer="Mara Lind", **about),
    )
    inputs = replace(_inputs(answer_tokens=4), suite=Suite(items))
    found = retrieved_suite(models, inputs)
    tasks = {each.task for each in found.values}
    assert tasks == {f"dev/{part}_retrieved{skill}" for part in ("learning", "retention") for skill in ("", "/direct")}
    assert [len(row["excerpts"]) for row in found.answers] == [1, 0]
    (said,) = [each for each in found.values if each.metric == "answer_found_frac"]
    assert (said.task, said.before, said.units) == ("dev/learning_retrieved", [1.0], ["founder"])
    MEASURES["suite_retrieved"].scores(found)


def test_retrieval_without_documents_or_questions_is_refused_before_a_model_is_loaded(
    model_folder: Path, tmp_path: Path
):
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": "Where?", "answer": "Oslo"}))
    (tmp_path / "text.txt").write_text("Oslo lies by the sea.")
    asked = {"questions": str(tmp_path / "quiz.jsonl"), "samples": 0}
    with pytest.raises(ConfigError, match="no documents to search"):
        evaluate(model_folder, retrieve=1, **asked)
    with pytest.raises(ConfigError, match="no question to search for"):
        evaluate(model_folder, retrieve=1, documents=str(tmp_path / "text.txt"))
    with pytest.raises(ConfigError, match="nothing is retrieved"):
        evaluate(model_folder, retrieve_from=str(tmp_path / "text.txt"), **asked)
    found = evaluate(model_folder, retrieve=1, retrieve_from=str(tmp_path / "text.txt"), **asked)
    assert {"questions/closed_book", "questions/retrieved"} == {score.task for score in found.scores}
