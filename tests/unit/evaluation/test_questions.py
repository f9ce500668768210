"""Asking and matching: proven by a model that is taught ten answers, and by matches worked out by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from afterword.errors import DataError
from afterword.evaluation.questions import (
    Question,
    Setting,
    answer_questions,
    answer_rows,
    build_prompt,
    exact_match,
    load_questions,
    question_scores,
    token_f1,
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ANSWERS = ["amber", "The Broncos", "1969", "blue whale", "c7", "drum", "eel", "fig", "gold-leaf", "hay"]
QUESTIONS = [Question(f"Key {n}?", (answer,), f"doc-{n}") for n, answer in enumerate(ANSWERS)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _tokenizer(chat_template: str | None) -> PreTrainedTokenizerFast:
    specials = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *characters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=specials[2:],
        chat_template=chat_template,
    )


def _random_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def _teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, end: str) -> None:
    """Over-fits the ten answers, each with `end` behind it."""
    prompts = [build_prompt(tokenizer, question.question).ids for question in QUESTIONS]
    answers = [
        tokenizer(f" {question.answers[0]}{end}", add_special_tokens=False)["input_ids"] for question in QUESTIONS
    ]
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    labels = torch.full_like(input_ids, -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(200):
        loss = model(input_ids=input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break


@pytest.mark.parametrize(("chat_template", "end"), [(None, "\nno"), (CHAT_TEMPLATE, "</s>")])
def test_ten_taught_answers_are_wrong_before_and_right_after(chat_template: str | None, end: str):
    tokenizer, model = _tokenizer(chat_template), _random_llama()

    def answers():
        return answer_questions(
            model,
            tokenizer,
            QUESTIONS,
            documents=None,
            setting="closed_book",
            max_length=128,
            max_new_tokens=16,
        )

    before = answers()
    _teach(model, tokenizer, end)
    after = answers()

    match, f1 = question_scores(before, after, "closed_book")
    assert (match.task, match.metric, match.n, match.better) == (
        "questions/closed_book",
        "exact_match_frac",
        10,
        "higher",
    )
    assert match.before is not None
    assert match.after is not None
    assert match.change is not None
    assert (match.before.value, match.after.value, match.change.value) == (0.0, 1.0, 1.0)
    assert match.change.interval_95 == (1.0, 1.0)
    assert f1.metric == "token_f1_frac"
    assert f1.after is not None
    assert f1.after.value == 1.0

    rows = answer_rows(before, after, "closed_book")
    assert [row["after"] for row in rows] == ANSWERS
    assert all(row["after_correct"] is True and row["before_correct"] is False for row in rows)
    assert " ".join(rows[0]) == ("setting question expected document prompt before after before_correct after_correct")
    json.dumps(rows)

    shifted = [Question(q.question, QUESTIONS[i - 1].answers, q.document) for i, q in enumerate(QUESTIONS)]
    wrong = answer_questions(model, tokenizer, shifted, documents=None, setting="closed_book", max_length=128)
    (match, _) = question_scores(None, wrong, "closed_book")
    assert match.after is not None
    assert match.after.value == 0.0, "right answers to other questions are wrong"
    assert match.before is match.change is None
    assert answer_rows(None, wrong, "closed_book")[0]["before"] is None


def test_the_prompt_without_a_chat_template_is_the_plain_one():
    tokenizer = _tokenizer(None)
    assert build_prompt(tokenizer, "Why?").text == "Question: Why?\nAnswer:"
    opened = build_prompt(tokenizer, "Why?", "It rained.")
    assert opened.text == "It rained.\n\nQuestion: Why?\nAnswer:"
    assert opened.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(list(opened.ids[1:])) == opened.text


def test_the_prompt_of_a_chat_model_is_its_template_with_the_document_before_the_question():
    tokenizer = _tokenizer(CHAT_TEMPLATE)
    assert build_prompt(tokenizer, "Why?").text == "<s><|user|>Why?</s><|assistant|>"
    opened = build_prompt(tokenizer, "Why?", "It rained.")
    assert opened.text == "<s><|user|>It rained.\n\nWhy?</s><|assistant|>"
    assert opened.ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(list(opened.ids)) == opened.text


def test_a_tokenizer_that_closes_every_text_does_not_end_the_prompt():
    tokenizer = _tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("x")["input_ids"][-1] == 1
    assert build_prompt(tokenizer, "Why?").ids[-1] != 1


@pytest.mark.parametrize("setting", ["closed_book", "open_book"])
def test_the_saved_prompt_holds_the_document_in_open_book_only(setting: Setting):
    documents = {question.document or "": f"Text {n}." for n, question in enumerate(QUESTIONS)}
    answers = answer_questions(
        _random_llama(), _tokenizer(None), QUESTIONS, documents=documents, setting=setting, max_length=128
    )
    expected = "Text 3.\n\nQuestion: Key 3?\nAnswer:" if setting == "open_book" else "Question: Key 3?\nAnswer:"
    assert answers[3].prompt == expected
    template = question_scores(None, answers, setting)[0].details["prompt_template"]
    assert template.replace("{document}", "Text 3.").replace("{question}", "Key 3?") == expected


@pytest.mark.parametrize(("chat_template", "text"), [(None, "ok"), (CHAT_TEMPLATE, "ok\nno")])
def test_without_a_template_a_line_break_inside_a_token_ends_the_answer(
    monkeypatch: pytest.MonkeyPatch, chat_template: str | None, text: str
):
    tokenizer = _tokenizer(chat_template)
    written = tokenizer(" ok\nno</s>", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("afterword.evaluation.questions.generate_greedy", lambda *_, **__: [written])
    (answer,) = answer_questions(
        _random_llama(), tokenizer, QUESTIONS[:1], documents=None, setting="closed_book", max_length=99
    )
    assert answer.text == text


def test_open_book_leaves_out_what_it_cannot_ask_whole_and_counts_it():
    tokenizer, model = _tokenizer(None), _random_llama()
    documents = {"doc-0": "short", "doc-1": "short!", "doc-2": "short"}
    # Exactly full with four new tokens; one character more in the document does not fit.
    max_length = len(build_prompt(tokenizer, "Key 0?", "short").ids) + 4
    answers = answer_questions(
        model,
        tokenizer,
        [*QUESTIONS[:4], Question("Key 9?", ("x",))],
        documents=documents,
        setting="open_book",
        max_length=max_length,
        max_new_tokens=4,
    )
    reasons = [answer.left_out for answer in answers]
    assert reasons == [None, "too_long", None, "document_missing", "document_missing"]
    scores = question_scores(answers, answers, "open_book")
    assert [score.n for score in scores] == [2, 2]
    assert scores[0].details["left_out"] == {"too_long": 1, "document_missing": 2}
    assert scores[0].details["max_new_tokens"] == 4
    assert [row["question"] for row in answer_rows(None, answers, "open_book")] == ["Key 0?", "Key 2?"]


def test_when_every_question_is_left_out_the_score_says_so():
    answers = answer_questions(
        _random_llama(), _tokenizer(None), QUESTIONS, documents={}, setting="open_book", max_length=99
    )
    (match, _) = question_scores(answers, answers, "open_book")
    assert (match.n, match.before, match.after, match.change) == (0, None, None, None)
    assert match.details["left_out"] == {"document_missing": 10}


def test_before_and_after_must_be_the_same_questions():
    answers = answer_questions(
        _random_llama(), _tokenizer(None), QUESTIONS, documents=None, setting="closed_book", max_length=99
    )
    with pytest.raises(AssertionError, match="same questions"):
        question_scores(answers[::-1], answers, "closed_book")


@pytest.mark.parametrize(
    ("text", "expected", "match", "f1"),
    [
        ("The Denver Broncos!", ("Denver broncos",), 1.0, 1.0),
        ("an  apple", ("Apple.",), 1.0, 1.0),
        ("theatre", ("atre",), 0.0, 0.0),  # an article is a word, not a beginning
        ("", ("x",), 0.0, 0.0),
        ("the", ("a",), 1.0, 1.0),
        ("one two three four", ("four five",), 0.0, 2 * 0.25 * 0.5 / 0.75),
        ("x x", ("x",), 0.0, 2 * 0.5 * 1 / 1.5),  # a repeated word is shared once
        ("x x", ("x x z",), 0.0, 2 * 1 * (2 / 3) / (5 / 3)),  # and twice where it is there twice
        ("b", ("z", "b c", "b"), 1.0, 1.0),  # the best of several
    ],
)
def test_matching_by_hand(text: str, expected: tuple[str, ...], match: float, f1: float):
    assert exact_match(text, expected) == match
    assert token_f1(text, expected) == pytest.approx(f1)


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz"])
def test_questions_are_read_plain_and_compressed(tmp_path: Path, name: str):
    rows = '\ufeff{"question": "Was ist größer?", "answer": "Köln", "document": "d"}\n\n'
    rows += '{"question": "b", "answers": ["x", "y"]}\n'
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wb") as file:
        file.write(rows.encode())
    assert load_questions(tmp_path / name) == (
        Question("Was ist größer?", ("Köln",), "d"),
        Question("b", ("x", "y"), None),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"question": "a", "answer": ', "broken JSON"),
        (b'{"answer": "a"}', '"question" is missing'),
        (b'{"question": " ", "answer": "a"}', '"question" is missing'),
        (b'{"question": "a"}', 'no "answer"'),
        (b'{"question": "a", "answers": []}', 'empty list of "answers"'),
        (b'{"question": "a", "answers": ["b", 3]}', "put numbers in quotes"),
        (b'{"question": "a", "answer": ""}', "not empty"),
        (b'{"question": "a", "answer": "b", "document": 3}', '"document" must be'),
        (b'["a", "b"]', "not an object"),
        (b'{"question": "\xff", "answer": "b"}', "not valid UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: bytes, problem: str):
    path = tmp_path / "quiz.jsonl"
    path.write_bytes(b'{"question": "fine", "answer": "yes"}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        load_questions(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.jsonl", None, "cannot be read"),
        ("empty.jsonl", b"\n \n", "holds no questions"),
        ("plain.jsonl.gz", b'{"question": "a", "answer": "b"}', "cannot be read"),
        ("cut.jsonl.gz", gzip.compress(b'{"question": "a", "answer": "b"}' * 9)[:-12], "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, problem: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_questions(tmp_path / name)


def test_real_questions_are_read():
    path = Path(__file__).parents[3].parent / "shared" / "data" / "squad_questions.jsonl"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    questions = load_questions(path)
    assert len(questions) == 2_638
    assert questions[0].answers == ("Denver Broncos",)
