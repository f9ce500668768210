"""Documents → study text: enough of every kind, nothing twice, and always the same."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from afterword.method_options import KINDS
from afterword.study.overlap import MOST_SHARED, runs_of, shared
from afterword.study.plan import StudyPlan
from afterword.study.rounds import parts_of, study_text
from afterword.types import Document, Request, Sampling

SAMPLING = Sampling(max_new_tokens=200, temperature=1.0)
PLAN = StudyPlan(amounts={"summary": 2.0, "implications": 0.5}, sampling=SAMPLING)
ALL = StudyPlan(amounts=dict.fromkeys(KINDS, 1.0), sampling=SAMPLING)


def answer(request: Request, rng: random.Random, words: int = 30) -> str:
    """Something of the form that is asked for, in words of its own."""
    asked = request.turns[-1][1]
    text = " ".join(f"word{rng.randrange(10**6)}" for _ in range(words))
    if "List the names" in asked:
        return "Mara Lind\nPer Holm\nOslo\nBergen"
    if "Name five different ways" in asked:
        return "1. Make a table of it.\n2. Tell it to a friend."
    return f"Question: {text}?\nAnswer: {text[:20]}" if "Question: ..." in asked else f"{text}."


def by_request(request: Request) -> str:
    return answer(request, random.Random(f"{request.turns} {request.seed}"))


def test_every_kind_reaches_its_amount(writing: Any, documents: list[Document]) -> None:
    study = study_text(writing(), documents, PLAN)
    tokens = sum(len(document.text.split()) for document in documents)
    assert study.document_tokens == tokens
    for kind, amount in PLAN.amounts.items():
        of_kind = [piece for piece in study.pieces if piece.kind == kind]
        assert study.counts[kind].tokens == sum(piece.tokens for piece in of_kind)
        # To the nearest text of 40 words for each of three documents, and at least one.
        assert abs(study.counts[kind].tokens - amount * tokens) <= 3 * 41
        assert {piece.document.id for piece in of_kind} == {document.id for document in documents}
    assert study.counts["summary"].pieces > study.counts["implications"].pieces


def test_all_kinds_are_written_and_every_piece_names_its_document(writing: Any, documents: list[Document]) -> None:
    study = study_text(writing(by_request), documents, ALL)
    # One document has two of the names, the others less: there is nothing to link in those.
    assert {piece.kind for piece in study.pieces} == set(KINDS)
    assert len({piece.id for piece in study.pieces}) == len(study.pieces)
    for piece in study.pieces:
        assert piece.id.startswith(f"{piece.document.id}/{piece.kind}/")
        assert piece.prompt.startswith(f"study/{piece.kind}_")
        assert piece.document.title is None or piece.text.startswith(piece.document.title)
    numbers = [piece.number for piece in study.pieces if piece.kind == "summary" and piece.document.id == "harbour"]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_same_documents_give_the_same_text(writing: Any, documents: list[Document]) -> None:
    once, again = (study_text(writing(by_request), documents, ALL) for _ in range(2))
    assert once == again
    other = study_text(writing(by_request), documents, replace(ALL, seed=1))
    assert other.pieces != once.pieces


def test_but_for_links_a_document_has_the_same_texts_beside_whatever_others(
    writing: Any, documents: list[Document]
) -> None:
    plan = replace(ALL, amounts=dict.fromkeys([kind for kind in KINDS if kind != "links"], 2.0))
    together = study_text(writing(by_request), documents, plan)
    for document in documents:
        alone = study_text(writing(by_request), [document], plan)
        assert alone.pieces == tuple(piece for piece in together.pieces if piece.document is document)


def test_no_request_is_made_twice(writing: Any, documents: list[Document]) -> None:
    writer = writing(by_request)
    study_text(writer, documents, replace(ALL, amounts=dict.fromkeys(KINDS, 4.0)))
    assert len(set(writer.asked)) == len(writer.asked)


def test_it_ends_where_nothing_new_comes(writing: Any, documents: list[Document]) -> None:
    same = "The council of the town has met in spring and has decided on the harbour."
    writer = writing(lambda request: same)
    study = study_text(writer, documents, replace(PLAN, amounts={"summary": 50.0}))
    assert study.counts["summary"].pieces == len(documents)
    assert set(study.counts["summary"].dropped) == {"duplicate"}
    assert len(writer.asked) <= len(documents) * 20


def test_it_ends_where_nothing_is_written(writing: Any, documents: list[Document]) -> None:
    study = study_text(writing(lambda request: ""), documents, ALL)
    assert study.pieces == ()
    assert all(set(count.dropped) <= {"empty", "without_answers"} for count in study.counts.values())


def test_an_echo_of_the_document_is_dropped(writing: Any, documents: list[Document]) -> None:
    def echo(request: Request) -> str:
        return request.turns[-1][1].split("\n\n")[1]

    study = study_text(writing(echo), documents[:1], PLAN)
    assert study.pieces == ()
    assert set(study.counts["summary"].dropped) == {"echo"}


def test_texts_about_one_document_are_not_nearly_the_same(writing: Any, documents: list[Document]) -> None:
    def few_words(request: Request) -> str:
        rng = random.Random(f"{request.turns} {request.seed}")
        start = rng.randrange(40)
        return " ".join(f"word{i}" for i in range(start, start + 25))

    study = study_text(writing(few_words), documents, replace(PLAN, amounts={"summary": 8.0, "rephrase": 8.0}))
    for document in documents:
        runs = [runs_of(piece.text) for piece in study.pieces if piece.document is document]
        assert all(shared(one, other) <= MOST_SHARED for i, one in enumerate(runs) for other in runs[:i])


def test_a_document_gets_no_more_new_tokens_than_its_length_needs(writing: Any) -> None:
    writer = writing()
    study_text(writer, [Document("short", "Mara Lind was born in Oslo.")], replace(PLAN, amounts={"summary": 1.0}))
    assert {request.sampling.max_new_tokens for request in writer.asked} == {128}


def test_a_long_document_is_studied_in_parts_of_whole_sentences(writing: Any) -> None:
    text = " ".join(f"Sentence {i} is about the harbour of Bergen." for i in range(30))
    document = Document("long", text, title="Harbours")
    parts = parts_of(document, writing(), replace(PLAN, part_tokens=50))
    assert len(parts) == 5
    assert " ".join(part.text for part in parts) == text
    assert all(part.tokens <= 50 and part.text.endswith(".") and part.shown.startswith("Harbours") for part in parts)
    study = study_text(writing(), [document], replace(PLAN, part_tokens=50))
    numbers = [piece.number for piece in study.pieces if piece.kind == "summary"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 5


def test_a_sentence_longer_than_a_part_is_cut(writing: Any) -> None:
    document = Document("table", " ".join(str(i) for i in range(100, 400)))
    parts = parts_of(document, writing(), replace(PLAN, part_tokens=50))
    assert max(part.tokens for part in parts) <= 51
    assert "".join(part.text for part in parts).replace(" ", "") == document.text.replace(" ", "")


@pytest.mark.parametrize("context", [1024, 2048, 8192])
def test_two_parts_and_what_is_written_fit_the_context(writing: Any, context: int) -> None:
    writer = writing(by_request)
    writer.tokenizer.model_max_length = context
    documents = [Document(name, "Mara Lind of Oslo met Per Holm in Bergen. " * 500 + name) for name in ("one", "two")]
    study_text(writer, documents, StudyPlan(amounts={"links": 0.1}, sampling=Sampling(max_new_tokens=4096)))
    assert any("Another text" in request.turns[-1][1] for request in writer.asked)
    for request in writer.asked:
        read = sum(len(content.split()) for _, content in request.turns)
        assert read + request.sampling.max_new_tokens <= context
