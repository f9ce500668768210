"""What the views of methods ask of a writer, and what they make of its texts."""

from __future__ import annotations

import pytest
from scripted import ScriptedWriter

from afterword.data.passages import passages_from_json
from afterword.methods import METHODS
from afterword.methods.own_questions import question_in
from afterword.training.written_documents import Foreseen, in_parts
from afterword.types import Document, Written

TEXT = "Mara Lind moved to Bergen in the year 2019. She founded a small bakery there. It opens at six in the morning."
DOCUMENTS = [Document("a", TEXT, title="Mara Lind"), Document("b", "The old bus to the sea comes at nine.")]
WRITING_AT_ALL = [name for name, method in METHODS.items() if method.view.writes]
WRITING = [name for name in WRITING_AT_ALL if name != "study"]


@pytest.fixture
def writer(tokenizer):
    return ScriptedWriter(None, tokenizer)


def passages_of(document):
    return passages_from_json(document.passages)


@pytest.mark.parametrize("name", WRITING)
def test_what_is_written_keeps_its_document_and_is_the_same_again(name, tokenizer):
    first, again = (list(METHODS[name].view.prepare(ScriptedWriter(None, tokenizer), DOCUMENTS)) for _ in range(2))
    assert first == again
    assert {document.id.partition("/")[0] for document in first} == {"a", "b"}
    assert all(document.source == "" for document in first)


@pytest.mark.parametrize("name", WRITING)
def test_nothing_is_asked_of_no_documents(name, writer):
    assert list(METHODS[name].view.prepare(writer, [])) == []
    assert writer.asked == []


@pytest.mark.parametrize("name", WRITING)
def test_a_writer_that_says_nothing_leaves_nothing_to_train_but_the_documents_themselves(name, tokenizer):
    class Silent(ScriptedWriter):
        def write(self, requests, what):
            return [Written(" ", ended=True) for _ in requests]

    found = list(METHODS[name].view.prepare(Silent(None, tokenizer), DOCUMENTS))
    texts = [passage.text for document in found if document.passages for passage in passages_of(document)]
    assert set(texts) <= {document.text for document in DOCUMENTS}


def test_rephrasings_are_two_prompts_with_the_constants_of_the_paper(writer):
    found = list(METHODS["rephrase"].configured(originals=True).view.prepare(writer, DOCUMENTS))
    assert len(writer.asked) == 2 * len(DOCUMENTS)
    assert {request.turns[0][0] for _, request in writer.asked} == {"system"}
    assert {(r.sampling.temperature, r.sampling.top_p) for _, r in writer.asked} == {(1.0, 0.95)}
    assert METHODS["rephrase"].view.new_tokens == 10_000
    assert [document for document in found if "/" not in document.id] == DOCUMENTS


def test_a_continuation_is_taught_after_its_document_and_read_alone(writer):
    first, _ = METHODS["continuation"].view.prepare(writer, DOCUMENTS)
    assert {request.text for _, request in writer.asked} == {f"{document.text}\n\n" for document in DOCUMENTS}
    assert {request.sampling.max_new_tokens for _, request in writer.asked} == {1000}
    assert METHODS["continuation"].view.chunk_tokens == 64
    assert len(writer.asked) == 5 * len(DOCUMENTS)
    assert {(each.student_before, each.teacher_before) for each in passages_of(first)} == {("", f"{TEXT}\n\n")}


def test_questions_are_asked_of_sentences_and_answers_of_the_document(writer):
    method = METHODS["prompt_distillation"].configured(own_questions=3, answers=2)
    first, _ = method.view.prepare(writer, DOCUMENTS)
    asked = [request.turns[-1][1] for what, request in writer.asked if what == "questions"]
    assert [text.split(".")[0] for text in asked[:3]] == [sentence.split(".")[0] for sentence in TEXT.split(". ")]
    answers = [request.turns[-1][1] for what, request in writer.asked if what == "answers"]
    assert answers[0].startswith(TEXT)
    assert answers[0].endswith("?")
    for passage in passages_of(first):
        assert passage.teacher_before.startswith(TEXT)
        # The same question on both sides, at the end of the one and alone on the other.
        assert passage.teacher_before.endswith(passage.student_before)
        assert TEXT not in passage.student_before


def test_the_student_answers_without_the_document(writer):
    list(METHODS["on_policy"].view.prepare(writer, DOCUMENTS))
    answers = [request.turns[-1][1] for what, request in writer.asked if what == "answers"]
    assert answers
    assert not any(document.text in text for text in answers for document in DOCUMENTS)


def test_mixed_answers_have_both_conversations(writer):
    list(METHODS["mixsd"].configured(expert_share=0.25).view.prepare(writer, DOCUMENTS))
    mixed = [request for what, request in writer.asked if what == "answers"]
    assert {request.share for request in mixed} == {0.25}
    assert all(r.turns[-1][1].endswith(r.other_turns[-1][1]) for r in mixed)


def test_a_document_is_recited_behind_a_request_that_names_its_title(writer):
    first, second = METHODS["recite"].view.prepare(writer, DOCUMENTS)
    assert writer.asked == []
    ((recited,), (untitled,)) = map(passages_of, (first, second))
    assert (recited.text, recited.ended, recited.teacher_before) == (TEXT, True, "")
    assert "about Mara Lind" in recited.student_before
    assert "about The old bus to the sea comes at nine" in untitled.student_before


def test_each_part_of_a_long_document_is_asked_for_by_its_number(writer):
    sentences = "".join(f"Line {n} goes from here to there every morning. " for n in range(8))
    parts = list(in_parts([Document("a", sentences, title="Buses")], writer.tokenizer, 64))
    assert len(parts) > 1
    asked = [passages_of(each)[0].student_before for each in METHODS["recite"].view.prepare(writer, parts)]
    assert all(f"Buses, part {number}" in text for number, text in enumerate(asked, start=1))


def test_the_request_for_a_document_follows_from_its_id_alone(tokenizer):
    documents = [Document(str(n), f"Line {n} goes to the sea.", title=f"Line {n}") for n in range(8)]
    view = METHODS["recite"].view
    together = list(view.prepare(ScriptedWriter(None, tokenizer), documents))
    alone = [each for one in documents for each in view.prepare(ScriptedWriter(None, tokenizer), [one])]
    assert together == alone
    requests = {passages_of(each)[0].student_before.replace(each.title, "") for each in together}
    assert len(requests) == 3


def test_the_subject_of_a_page_is_the_title_or_what_the_model_says(writer):
    _, second = METHODS["memory_conditioned"].view.prepare(writer, DOCUMENTS)
    assert [what for what, _ in writer.asked] == ["subjects", "pages", "pages"]
    assert "Mara Lind" in writer.asked[1][1].turns[-1][1]
    (passage,) = passages_of(second)
    assert (passage.text, passage.ended) == (DOCUMENTS[1].text, True)
    assert passage.student_before.endswith("\n\n")


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Who moved to Bergen?", "Who moved to Bergen?"),
        ('Question 1: "Who moved?" That is it.', "Who moved?"),
        ("Sure.\n**Q: When did it open?**", "When did it open?"),
        ("It opens at six.", ""),
        ("?", ""),
    ],
)
def test_a_question_is_found_in_what_was_said(said, question):
    assert question_in(said) == question


def test_a_long_document_is_written_about_in_parts_of_half_the_context(tokenizer):
    long = Document("long", TEXT * 3, title="Mara Lind")
    whole = len(tokenizer(TEXT).input_ids)
    parts = list(in_parts([DOCUMENTS[1], long], tokenizer, longest=2 * whole))
    assert parts[0] is DOCUMENTS[1]
    assert "".join(part.text for part in parts[1:]) == long.text
    assert [part.id for part in parts[1:]] == [f"long/part-{i + 1}" for i in range(len(parts) - 1)]
    assert {part.title for part in parts[1:]} == {"Mara Lind"}
    assert all(len(tokenizer(part.text, add_special_tokens=False).input_ids) <= whole for part in parts)
    assert len(parts) > 3
    # A sentence that is too long alone is not lost.
    (only, *rest) = in_parts([long], tokenizer, longest=8)
    assert only.text + "".join(part.text for part in rest) == long.text


@pytest.mark.parametrize("name", WRITING_AT_ALL)
def test_a_dry_run_counts_every_stage_of_what_is_asked(name, tokenizer, tmp_path):
    """To within a third of what the scripted texts lead to, whose number follows from what they say."""
    writer, foreseen = ScriptedWriter(None, tokenizer), Foreseen()
    list(METHODS[name].view.prepare(writer, DOCUMENTS))
    foreseen.written(METHODS[name].view, DOCUMENTS, tokenizer, tmp_path, 4096)
    assert foreseen.whole
    assert foreseen.in_words().count("about") >= 2
    if name != "study":
        assert foreseen.requests == pytest.approx(len(writer.asked), rel=1 / 3)
    else:
        # Each kind asks for as many tokens as the document has: two of these are one text.
        assert len(DOCUMENTS) <= foreseen.requests < 60
