"""Questions with short answers about the documents, asked closed book and open book.

The one rule: a prompt is asked whole or not at all. Open book is the ceiling that learning is held against,
so a question whose document is missing or does not fit is left out and counted, never asked with less.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from afterword.data import as_words
from afterword.errors import DataError
from afterword.evaluation.checks import says
from afterword.evaluation.choices import Likelihoods, is_first_likeliest, likelihoods
from afterword.evaluation.intervals import before_and_after
from afterword.evaluation.losses import Models
from afterword.evaluation.right_answers import exact_match, said, token_f1
from afterword.models.generation import by_template, generate, token_ids, user_turn
from afterword.progress import Progress
from afterword.storage.json_lines import read_rows
from afterword.types import Score

VERSION = 3
ANSWER_TOKENS = 48
"""Room for an answer, in tokens."""
SIDES = ("before", "after")
_ROW = 'Each line is one object: {"question": "…", "answer": "…"}, or "answers": ["…", …], and "choices": ["…", …].'


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what counts as its answer."""

    question: str
    expected: tuple[str, ...]
    """What counts as right; the best match of any of them counts."""
    document: str | None = None
    """Id of the document that holds the answer."""
    choices: tuple[str, ...] = ()
    """Wrong answers, for choice by likelihood; none: not measured."""
    right_choice: str | None = None
    """Which of the expected answers stands among the choices; None: the first."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The right answer, and then the wrong ones; empty where there are none to choose from."""
        return (self.right_choice or self.expected[0], *self.choices) if self.choices else ()


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a .jsonl file, plain or .gz. DataError, with file and line, for what is not one."""
    path = Path(path)
    questions = tuple(_question(where, row) for where, row in read_rows(path, _ROW))
    if not questions:
        raise DataError(f"{path}: holds no questions. {_ROW}")
    return questions


def _question(where: str, row: dict[str, Any]) -> Question:
    question, document, answers = row.get("question"), row.get("document"), row.get("answers", row.get("answer"))
    answers, choices = answers if isinstance(answers, list) else [answers], row.get("choices") or []
    for problem, wrong in {
        '"question" is missing or not text': _as_text(question) is None,
        'no "answer", or an empty list of "answers"': answers in ([], [None]),
        "every answer must be a number, or text that is not empty": None in map(_as_text, answers),
        '"document" must be a document id in quotes, or left away': not isinstance(document, str | None),
        '"choices" must be a list of texts or numbers': not isinstance(choices, list) or None in map(_as_text, choices),
    }.items():
        if wrong:
            raise DataError(f"{where}: {problem}. {_ROW}")
    expected = tuple(text for text in map(_as_text, answers) if text)
    offered = dict.fromkeys(text for text in map(_as_text, choices) if text)
    right = [choice for choice in offered if exact_match(choice, expected)]
    others = tuple(choice for choice in offered if choice not in right)
    if offered and not others:
        raise DataError(f'{where}: every one of the "choices" is a right answer. Give wrong ones beside it. {_ROW}')
    return Question(str(_as_text(question)), expected, document, others, next(iter(right), None))


def _as_text(value: Any) -> str | None:
    """Text, or a number as text; None where it is neither, or empty.

    >>> _as_text(42), _as_text(2.50), _as_text(" a "), _as_text(True), _as_text(" ")
    ('42', '2.5', ' a ', None, None)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def build_prompt(tokenizer: Any, question: str, document_text: str | None = None, instruction: str = "") -> str:
    """The question as a user turn of the chat template, or as `Question: …` and `Answer:` without one.

    A document text goes before it, with a blank line between. An instruction stands behind the question, on a line of
    its own; a model without a chat template follows none, and is given none.
    """
    asked = f"{question}\n{instruction}" if instruction else question
    text = asked if tokenizer.chat_template else f"Question: {question}\nAnswer:"
    text = text if document_text is None else f"{document_text}\n\n{text}"
    return user_turn(tokenizer, text) if tokenizer.chat_template else as_words(tokenizer, text)


def answer_lead(tokenizer: Any) -> str:
    """The white space between a prompt and the answer: a space without a chat template, and in some with one."""
    if not tokenizer.chat_template:
        return " "
    prompt, mark = user_turn(tokenizer, "?"), "@"
    whole = by_template(tokenizer, ("user", "?"), ("assistant", mark))
    between = whole.removeprefix(prompt).split(mark)[0] if whole.startswith(prompt) else ""
    return between if between.isspace() else ""


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt. A chat template writes BOS and the like itself."""
    if tokenizer.chat_template:
        return token_ids(tokenizer, prompt)
    ids = tokenizer(prompt, verbose=False)["input_ids"]
    # A tokenizer that closes every text with EOS would end the prompt before the answer.
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids


def end_of_turn(tokenizer: Any) -> list[int]:
    """The token that the chat template writes behind an answer, where it is one that means nothing else."""
    if not tokenizer.chat_template:
        return []
    mark = "@"
    whole = by_template(tokenizer, ("user", "?"), ("assistant", mark))
    behind = token_ids(tokenizer, whole.rpartition(mark)[2].lstrip())[:1]
    return [token for token in behind if token in tokenizer.added_tokens_decoder]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as it is put, in prompts."""

    question: Question
    to_write: str
    """With the instruction."""
    to_choose: str
    """Without it."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """What one model made of a question."""

    text: str
    likelihoods: Likelihoods
    """Of the candidates; of none where there is nothing to choose from."""


_METRICS: dict[str, Callable[[Question, _Answered], float | None]] = {
    "said_frac": lambda asked, answer: said(answer.text, asked.expected, _others(asked)),
    "exact_match_frac": lambda asked, answer: exact_match(answer.text, asked.expected),
    "token_f1_frac": lambda asked, answer: token_f1(answer.text, asked.expected),
    "choice_correct_frac": lambda asked, answer: (
        float(is_first_likeliest(answer.likelihoods.per_token)) if asked.choices else None
    ),
}
"""The value of an answer: None where the question is not measured by it."""


def ask(
    models: Models,
    questions: Sequence[Question],
    setting: str,
    documents: Mapping[str, str] | None = None,
    *,
    instruction: str = "",
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Greedy answers of both models and their choices, as fractions that are right, and a row for each question asked.

    `said_frac`: the answer says what is expected, and nothing that is offered as wrong; `exact_match_frac`;
    `token_f1_frac`; and of the questions that have choices, `choice_correct_frac`: the right one is likelier than each
    of the others, by nats per token, behind the question without the instruction, which is about writing. In a row,
    `correct` is that the answer was said.

    Open book with `documents`, texts by id; closed book without. The questions left out are counted by reason,
    `document_missing` or `too_long`, in `details["left_out"]`; a score with n = 0 says that all of them were.
    """
    put = [_put(models, question, documents, instruction) for question in questions]
    asked = [each for each in put if isinstance(each, _Asked)]
    writers = {"before": models.reference, "after": models.adapted} if models.adapted else {"after": models.reference}
    sides = {side: _answers(writer, models, asked, f"{setting} {side}") for side, writer in writers.items()}
    template = build_prompt(models.tokenizer, "{question}", None if documents is None else "{document}", instruction)
    limits = {"max_new_tokens": ANSWER_TOKENS, "max_length_tokens": models.max_length}
    left_out = dict(Counter(reason for reason in put if isinstance(reason, str)))
    details = {"prompt_template": template, "decoding": "greedy", **limits, "left_out": left_out}
    score = partial(Score, task=f"questions/{setting}", version=VERSION, better="higher", details=details)
    scores = []
    for metric, value in _METRICS.items():
        rows = [i for i, each in enumerate(asked) if each.question.choices or metric != "choice_correct_frac"]
        found: dict[str, Any] = {
            side: [value(asked[i].question, answers[i]) for i in rows] or None for side, answers in sides.items()
        }
        if rows or (not asked and metric != "choice_correct_frac"):
            scores.append(score(metric=metric, n=len(rows), **before_and_after(*map(found.get, SIDES))))
    answered = [{side: sides[side][i] for side in sides} for i in range(len(asked))]
    return scores, [_row(setting, each, answers) for each, answers in zip(asked, answered, strict=True)]


def _others(question: Question) -> list[str]:
    """Wrong answers that a right one has no reason to say: what the question names itself may come back."""
    return [choice for choice in question.choices if not says(question.question, choice)]


def _row(setting: str, asked: _Asked, sides: Mapping[str, _Answered]) -> dict[str, Any]:
    question = asked.question
    row: dict[str, Any] = {"setting": setting, "question": question.question, "expected": list(question.expected)}
    row |= {"document": question.document, "prompt": asked.to_write}
    row |= {side: sides[side].text if side in sides else None for side in SIDES}
    right = _METRICS["said_frac"]
    row |= {f"{side}_correct": bool(right(question, sides[side])) if side in sides else None for side in SIDES}
    if question.choices:
        row["choices"] = list(question.candidates)
        for side, answer in sides.items():
            row[f"{side}_chosen"] = question.candidates[int(answer.likelihoods.per_token.argmax())]
    return row


def _put(
    models: Models, question: Question, documents: Mapping[str, str] | None, instruction: str
) -> _Asked | Literal["document_missing", "too_long"]:
    """A question in prompts, or why it is not asked."""
    document = None if documents is None else documents.get(question.document or "")
    if documents is not None and document is None:
        return "document_missing"
    write, choose = (build_prompt(models.tokenizer, question.question, document, said) for said in (instruction, ""))
    longest = max([ANSWER_TOKENS, *map(len, _candidates(models.tokenizer, question))])
    if len(prompt_ids(models.tokenizer, write)) + longest > models.max_length:
        return "too_long"
    return _Asked(question, write, choose)


def _candidates(tokenizer: Any, question: Question) -> list[list[int]]:
    lead = answer_lead(tokenizer)
    return [token_ids(tokenizer, lead + text) for text in question.candidates]


def _answers(model: Any, models: Models, asked: Sequence[_Asked], what: str) -> list[_Answered]:
    """Without a chat template an answer ends at its first line break."""
    tokenizer = models.tokenizer
    ids, plain = [prompt_ids(tokenizer, each.to_write) for each in asked], not tokenizer.chat_template
    # Line breaks spare the tokens after the answer; those inside other tokens are cut from the text.
    breaks = {token_ids(tokenizer, text)[-1] for text in ("\n", "\n\n")} if plain else ()
    ends = [token for token in breaks if tokenizer.decode([token]).endswith("\n")] or end_of_turn(tokenizer)
    cost = f"{len(ids):,} prompts, {sum(map(len, ids)):,} tokens, up to {ANSWER_TOKENS} new ones each"
    with Progress(f"{what}: answers", len(ids), cost=cost) as progress:
        how: dict[str, Any] = {"max_new_tokens": ANSWER_TOKENS, "extra_eos_ids": ends, "advance": progress.advance}
        written = generate(model, tokenizer, ids, **how)
    texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in written]
    texts = [(text.split("\n", 1)[0] if plain else text).strip() for text in texts]
    to_choose = [(prompt_ids(tokenizer, each.to_choose), _candidates(tokenizer, each.question)) for each in asked]
    with Progress(f"{what}: choices", sum(bool(candidates) for _, candidates in to_choose)) as progress:
        how = {"batch_tokens": models.micro_batch_tokens, "advance": progress.advance}
        likely = likelihoods(model, to_choose, **how)
    return [_Answered(text, each) for text, each in zip(texts, likely, strict=True)]
