"""Asking and matching: proven by a model that is taught ten answers, and by matches worked out by hand."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, random_llama
from tokenizers import processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from afterword.data import SpecialTokens
from afterword.errors import ConfigError, DataError
from afterword.evaluation import questions as asking
from afterword.evaluation.measure import Models
from afterword.evaluation.measures import MEASURES
from afterword.evaluation.question_file import Question, load_questions, of_split
from afterword.evaluation.questions import answer_lead, build_prompt
from afterword.evaluation.right_answers import exact_match, said, token_f1
from afterword.models.generation import end_of_turn, prompt_ids

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ANSWERS = ["amber", "The Broncos", "1969", "blue whale", "c7", "drum", "eel", "fig", "gold-leaf", "hay"]
QUESTIONS = [Question(f"Key {n}?", (answer,), f"doc-{n}") for n, answer in enumerate(ANSWERS)]


def ask(*asked: Any, **how: Any) -> tuple[list[Any], list[Any]]:
    found = asking.ask(*asked, **how)
    return MEASURES["questions/closed_book"].scores(found), list(found.answers)


def _tokenizer(chat_template: str | None) -> PreTrainedTokenizerFast:
    turns = ("<|user|>", "<|assistant|>")
    return byte_tokenizer(chat_template, specials=turns, adds_bos=True, additional_special_tokens=turns)


def _random_llama() -> LlamaForCausalLM:
    return random_llama(vocab_size=260, hidden_size=64, intermediate_size=128)


def _models(reference: Any, adapted: Any, tokenizer: Any, max_length: int = 128) -> Models:
    return Models(reference, adapted, tokenizer, SpecialTokens((0,), 1), max_length)


def _teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, end: str) -> None:
    """Over-fits the ten answers, each with `end` behind it."""
    prompts = [prompt_ids(tokenizer, build_prompt(tokenizer, question.question)) for question in QUESTIONS]
    answers = [
        tokenizer(f" {question.expected[0]}{end}", add_special_tokens=False)["input_ids"] for question in QUESTIONS
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
    model.eval()


@pytest.mark.parametrize(("chat_template", "end"), [(None, "\nno"), (CHAT_TEMPLATE, "</s>")])
def test_ten_taught_answers_are_wrong_before_and_right_after(chat_template: str | None, end: str):
    tokenizer, before, model = _tokenizer(chat_template), _random_llama(), _random_llama()
    _teach(model, tokenizer, end)
    (said, match, f1), rows = ask(_models(before, model, tokenizer), QUESTIONS, "closed_book")
    assert (said.metric, said.before.value, said.after.value) == ("said_frac", 0.0, 1.0)
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
    # What ten questions did not show has a share of at most u = z² / (10 + z²) = 0.2775: 1 − 2u.
    assert match.change.interval_95 == pytest.approx((0.444934, 1.0), abs=1e-6)
    assert f1.metric == "token_f1_frac"
    assert f1.after is not None
    assert f1.after.value == 1.0

    assert [row["after"] for row in rows] == ANSWERS
    assert all(row["after_correct"] is True and row["before_correct"] is False for row in rows)
    assert " ".join(rows[0]) == ("setting question expected document prompt before after before_correct after_correct")
    json.dumps(rows)

    shifted = [Question(q.question, QUESTIONS[i - 1].expected, q.document) for i, q in enumerate(QUESTIONS)]
    (_, match, _), rows = ask(_models(model, None, tokenizer), shifted, "closed_book")
    assert match.after is not None
    assert match.after.value == 0.0, "right answers to other questions are wrong"
    assert match.before is match.change is None
    assert (rows[0]["before"], rows[0]["before_correct"], rows[0]["after_correct"]) == (None, None, False)


@pytest.mark.parametrize(
    ("chat_template", "lead"),
    [
        (None, " "),
        (CHAT_TEMPLATE, ""),
        (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}",
            " ",
        ),
    ],
)
def test_what_stands_before_an_answer_is_what_the_template_writes(chat_template: str | None, lead: str):
    assert answer_lead(_tokenizer(chat_template)) == lead


def test_the_prompt_without_a_chat_template_is_the_plain_one():
    tokenizer = _tokenizer(None)
    assert build_prompt(tokenizer, "Why?") == "Question: Why?\nAnswer:"
    opened = build_prompt(tokenizer, "Why?", "It rained.")
    assert opened == "It rained.\n\nQuestion: Why?\nAnswer:"
    ids = prompt_ids(tokenizer, opened)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == opened


def test_the_prompt_of_a_chat_model_is_its_template_with_the_document_before_the_question():
    tokenizer = _tokenizer(CHAT_TEMPLATE)
    assert build_prompt(tokenizer, "Why?") == "<s><|user|>Why?</s><|assistant|>"
    opened = build_prompt(tokenizer, "Why?", "It rained.")
    assert opened == "<s><|user|>It rained.\n\nWhy?</s><|assistant|>"
    assert prompt_ids(tokenizer, opened).count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(prompt_ids(tokenizer, opened)) == opened


def test_a_tokenizer_that_closes_every_text_does_not_end_the_prompt():
    tokenizer = _tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("x")["input_ids"][-1] == 1
    assert prompt_ids(tokenizer, build_prompt(tokenizer, "Why?"))[-1] != 1


@pytest.mark.parametrize("opened", [False, True])
def test_the_saved_prompt_holds_the_document_in_open_book_only(opened: bool):
    documents = {question.document or "": f"Text {n}." for n, question in enumerate(QUESTIONS)}
    models = _models(_random_llama(), None, _tokenizer(None))
    scores, rows = ask(models, QUESTIONS, "setting", documents if opened else None)
    expected = "Text 3.\n\nQuestion: Key 3?\nAnswer:" if opened else "Question: Key 3?\nAnswer:"
    assert rows[3]["prompt"] == expected
    template = scores[0].details["prompt_template"]
    assert template.replace("{document}", "Text 3.").replace("{question}", "Key 3?") == expected


@pytest.mark.parametrize(("chat_template", "text"), [(None, "ok"), (CHAT_TEMPLATE, "ok\nno")])
def test_without_a_template_a_line_break_inside_a_token_ends_the_answer(
    monkeypatch: pytest.MonkeyPatch, chat_template: str | None, text: str
):
    tokenizer = _tokenizer(chat_template)
    written = tokenizer(" ok\nno</s>", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr("afterword.evaluation.questions.generate", lambda *_, **__: [written])
    _, (row,) = ask(_models(_random_llama(), None, tokenizer), QUESTIONS[:1], "closed_book")
    assert row["after"] == text


def test_an_empty_answer_is_wrong_and_not_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("afterword.evaluation.questions.generate", lambda *_, **__: [[1]])
    scores, (row,) = ask(_models(_random_llama(), _random_llama(), _tokenizer(None)), QUESTIONS[:1], "closed_book")
    assert (row["before"], row["before_correct"], row["after"], row["after_correct"]) == ("", False, "", False)
    assert scores[0].after is not None
    assert scores[0].after.value == 0.0


def test_open_book_leaves_out_what_it_cannot_ask_whole_and_counts_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("afterword.evaluation.questions.ANSWER_TOKENS", 4)
    tokenizer, model = _tokenizer(None), _random_llama()
    documents = {"doc-0": "short", "doc-1": "short!", "doc-2": "short"}
    # Exactly full with four new tokens; one character more in the document does not fit.
    max_length = len(prompt_ids(tokenizer, build_prompt(tokenizer, "Key 0?", "short"))) + 4
    models = _models(model, model, tokenizer, max_length)
    scores, rows = ask(models, [*QUESTIONS[:4], Question("Key 9?", ("x",))], "open_book", documents)
    assert [score.n for score in scores] == [2, 2, 2]
    assert scores[0].details["left_out"] == {"too_long": 1, "document_missing": 2}
    assert scores[0].details["max_new_tokens"] == 4
    assert [row["question"] for row in rows] == ["Key 0?", "Key 2?"]


def test_when_every_question_is_left_out_the_score_says_so():
    model = _random_llama()
    (match, *_), rows = ask(_models(model, model, _tokenizer(None)), QUESTIONS, "open_book", {})
    assert (match.n, match.before, match.after, match.change) == (0, None, None, None)
    assert match.details["left_out"] == {"document_missing": 10}
    assert rows == []


@pytest.mark.parametrize(
    ("text", "expected", "match", "f1"),
    [
        ("The Denver Broncos!", ("Denver broncos",), 1.0, 1.0),
        ("an  apple", ("Apple.",), 1.0, 1.0),
        ("theatre", ("atre",), 0.0, 0.0),  # an article is a word, not a beginning
        ("", ("x",), 0.0, 0.0),
        ("the", ("a",), 0.0, 0.0),  # where there is nothing else, an article is what is said
        ("0.2.21", ("0.2.2",), 0.0, 0.0),  # a point inside of a number stays
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
        (b'{"question": "a", "answers": ["b", true]}', "a number, or text"),
        (b'{"question": "a", "answer": {"b": 1}}', "a number, or text"),
        (b'{"question": "a", "answer": "b", "choices": "c"}', '"choices" must be'),
        (b'{"question": "a", "answer": "b", "choices": ["c", null]}', '"choices" must be'),
        (b'{"question": "a", "answer": "The b", "choices": ["B."]}', "every one of the"),
        (b'{"question": "a", "answer": ""}', "not empty"),
        (b'{"question": "a", "answer": "b", "document": 3}', '"document" must be'),
        (b'{"question": "a", "answer": "b", "split": "train"}', '"split" must be'),
        (b'{"question": "a", "answer": "b", "unit": 3}', '"unit" must be'),
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


def test_a_suite_given_for_questions_is_told_where_the_questions_are(tmp_path: Path):
    rows = [{"suite": {"name": "quiz"}}, {"id": "a", "prompt": "Where?", "answer": "Oslo", "checks": []}]
    for name, own in (("quiz.jsonl", rows), ("plain.jsonl", rows[1:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in own))
    (tmp_path / "quiz.questions.jsonl").write_text(json.dumps({"question": "Where?", "answer": "Oslo"}))
    with pytest.raises(DataError, match=r"quiz\.jsonl: is a suite.* are in .*quiz\.questions\.jsonl\."):
        load_questions(tmp_path / "quiz.jsonl")
    with pytest.raises(DataError, match=r"plain\.jsonl: is a suite, .* Give it as suite\.$"):
        load_questions(tmp_path / "plain.jsonl")


def test_wordings_of_one_unit_count_as_one_in_an_interval():
    tokenizer, model = _tokenizer(CHAT_TEMPLATE), _random_llama()
    twice = [replace(each, unit=each.expected[0]) for each in QUESTIONS for _ in range(2)]
    (once, _, _), _ = ask(_models(model, model, tokenizer), QUESTIONS, "closed_book")
    (wordings, _, _), _ = ask(_models(model, model, tokenizer), twice, "closed_book")
    (alone, _, _), _ = ask(
        _models(model, model, tokenizer), [replace(each, unit=None) for each in twice], "closed_book"
    )
    assert (once.n, wordings.n, alone.n) == (10, 20, 20)
    assert wordings.details["units"] == 10
    assert "units" not in once.details | alone.details
    assert once.after.interval_95 == wordings.after.interval_95
    assert np.ptp(wordings.after.interval_95) > np.ptp(alone.after.interval_95)


def test_of_a_split_are_its_questions_and_those_without_one(tmp_path: Path):
    rows = [
        {"question": f"Where {n}?", "answer": "Oslo", **own}
        for n, own in enumerate(({"split": "dev"}, {"split": "test"}, {}))
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = load_questions(tmp_path / "asked.jsonl")
    assert {split: [each.question[6] for each in of_split(questions, split)] for split in ("dev", "test", "both")} == {
        "dev": ["0", "2"], "test": ["1", "2"], "both": ["0", "1", "2"]
    }  # fmt: skip
    assert "dev" not in str(questions[0]), "a sequence knows questions by what they ask"
    with pytest.raises(ConfigError, match="no question of the split 'test'"):
        of_split(questions[:1], "test")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.jsonl", None, "cannot be read"),
        ("empty.jsonl", b"\n \n", "holds no questions"),
        ("plain.jsonl.gz", b'{"question": "a", "answer": "b"}', "cannot be read"),
        ("cut.jsonl.gz", gzip.compress(b'{"question": "a", "answer": "b"}' * 9, mtime=0)[:-12], "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, problem: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_questions(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "expected", "others", "right"),
    [
        ("It is Hanoi.", ("Hanoi",), (), 1.0),
        ("hanoi", ("Hanoi",), (), 1.0),
        ("The Hanoian way", ("Hanoi",), (), 0.0),
        ("on the 13 January 2025, a Monday", ("13 January 2025",), (), 1.0),
        ("113 January 2025", ("13 January 2025",), (), 0.0),
        ("Oslo, Norway", ("Oslo Norway",), (), 1.0),
        ("There are 5 of them", ("5",), (), 1.0),
        ("There are 15 of them, or 5.5", ("5",), (), 0.0),
        ("There is no such rule", ("no",), (), 0.0),
        ("No, there is none", ("no",), (), 1.0),
        ("no", ("No.",), (), 1.0),
        ("Either Oslo, Bergen or Rome", ("Oslo",), ("Bergen", "Rome"), 0.0),
        ("New York City", ("New York City",), ("New York", "York"), 1.0),
        ("New York City, or York", ("New York City",), ("York",), 0.0),
        ("Rome", ("Oslo",), ("Rome",), 0.0),
        ("", ("Oslo",), (), 0.0),
        ("b or c", ("c", "b"), (), 1.0),
    ],
)
def test_what_is_said_by_hand(text: str, expected: tuple[str, ...], others: tuple[str, ...], right: float):
    assert said(text, expected, others) == right


def test_numbers_and_choices_are_read(tmp_path: Path):
    rows = [
        {"question": "How many?", "answer": 42, "choices": [41, "42", 43.5]},
        {"question": "Who?", "answers": ["Kari", "Kari Lind"], "choices": ["Ola", "Kari Lind", "Ola"]},
        {"question": "Where?", "answer": "Oslo", "choices": ["Rome"]},
        {"question": "Why?", "answer": 2.5},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    many, who, where, why = load_questions(path)
    assert (many.expected, many.candidates) == (("42",), ("42", "41", "43.5"))
    assert who.candidates == ("Kari Lind", "Ola"), "the right answer that is offered, and each other once"
    assert where.candidates == ("Oslo", "Rome"), "the answer need not be among the choices"
    assert (why.expected, why.candidates) == (("2.5",), ())


def test_the_instruction_stands_behind_the_question_of_a_chat_model_alone():
    chat, plain = _tokenizer(CHAT_TEMPLATE), _tokenizer(None)
    opened = build_prompt(chat, "Why?", "It rained.", "Be brief.")
    assert opened == "<s><|user|>It rained.\n\nWhy?\nBe brief.</s><|assistant|>"
    assert build_prompt(plain, "Why?", None, "Be brief.") == build_prompt(plain, "Why?")
    scores, rows = ask(_models(_random_llama(), None, chat), QUESTIONS[:1], "closed_book", instruction="Be brief.")
    assert scores[0].details["prompt_template"] == "<s><|user|>{question}\nBe brief.</s><|assistant|>"
    assert rows[0]["prompt"] == "<s><|user|>Key 0?\nBe brief.</s><|assistant|>"


def test_what_ends_a_turn_ends_an_answer():
    named = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|assistant|>{% endfor %}"
    assert end_of_turn(_tokenizer(CHAT_TEMPLATE)) == [1]
    assert end_of_turn(_tokenizer(named)) == [3], "the model's own configuration does not know it"
    assert end_of_turn(_tokenizer("{% for m in messages %}{{ m['content'] }} over{% endfor %}")) == []
    assert end_of_turn(_tokenizer(None)) == []


def test_a_choice_is_scored_per_token_and_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    from afterword.evaluation import questions
    from afterword.evaluation.choices import Likelihoods

    # Four tokens at −1 each against one at −2: likelier by the token, not by the sum.
    sides = iter([Likelihoods(np.array([-4.0, -2.0]), np.array([4, 1]), np.array([False, False]))] * 2)
    none = Likelihoods(np.array([]), np.array([]), np.array([]))
    prompts: list[str] = []

    def likelihoods(model: Any, asked: Any, **_: Any) -> list[Likelihoods]:
        prompts.extend(tokenizer.decode(prompt) for prompt, _ in asked)
        return [next(sides), none]

    monkeypatch.setattr(questions, "likelihoods", likelihoods)
    asked = [Question("a?", ("Oslo",), choices=("R",)), Question("b?", ("x",))]
    tokenizer = _tokenizer(CHAT_TEMPLATE)
    models = _models(_random_llama(), _random_llama(), tokenizer)
    scores, rows = ask(models, asked, "closed_book", instruction="Be brief.")
    assert "Be brief." in rows[0]["prompt"]
    assert "a?" in prompts[0]
    assert not any("Be brief." in prompt for prompt in prompts), "the instruction is about writing"
    (choice,) = [score for score in scores if score.metric == "choice_correct_frac"]
    assert (choice.n, choice.before.value, choice.after.value) == (1, 1.0, 1.0)
    assert (rows[0]["choices"], rows[0]["before_chosen"], rows[0]["after_chosen"]) == (["Oslo", "R"], "Oslo", "Oslo")
    assert "choices" not in rows[1]
    assert [score.n for score in scores] == [2, 2, 2, 1]


def test_real_questions_are_read():
    path = Path(__file__).parents[3].parent / "shared" / "data" / "squad_questions.jsonl"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    questions = load_questions(path)
    assert len(questions) == 2_638
    assert questions[0].expected == ("Denver Broncos",)
