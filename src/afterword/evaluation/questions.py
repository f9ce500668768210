"""Questions with short answers about the documents, asked closed book and open book.

The one rule: a prompt is asked whole or not at all. Open book is the ceiling that learning is held against,
so a question whose document is missing or does not fit is left out and counted, never asked with less.
Matching follows SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import string
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from afterword.errors import DataError
from afterword.evaluation.generation import generate_greedy
from afterword.evaluation.statistics import estimate, paired_change
from afterword.types import Score

VERSION = 1
Setting = Literal["closed_book", "open_book"]
_ROW = 'Each line is one object: {"question": "…", "answer": "…"}, or "answers": ["…", …].'


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    answers: tuple[str, ...]
    """What counts as right; the best match of any of them counts."""
    document: str | None = None
    """Id of the document that holds the answer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions were put: what is needed to put them again."""

    prompt_template: str
    """The prompt as it was, with {question} and {document} in the places of theirs."""
    max_length: int
    """Tokens of prompt and answer together."""
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    question: Question
    prompt: str
    text: str
    asking: Asking
    left_out: str | None = None
    """None, or why it was not asked: `document_missing`, `too_long`."""

    @property
    def exact_match(self) -> float:
        return exact_match(self.text, self.question.answers)

    @property
    def token_f1(self) -> float:
        return token_f1(self.text, self.question.answers)


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a .jsonl file, plain or .gz. DataError, with file and line, for what is not one."""
    path = Path(path)
    lines = enumerate(_lines(path), start=1)
    questions = tuple(_question(line, f"{path}:{number}") for number, line in lines if line.strip())
    if not questions:
        raise DataError(f"{path}: holds no questions. {_ROW}")
    return questions


def _lines(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}). Give a .jsonl or .jsonl.gz file.") from error


def _question(line: bytes, where: str) -> Question:
    row = _row(line, where)
    question, document = row.get("question"), row.get("document")
    answers = row.get("answers", row.get("answer"))
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(question, str) or not question.strip():
        raise DataError(f'{where}: "question" is missing or not text. {_ROW}')
    if not isinstance(answers, list) or not answers:
        raise DataError(f'{where}: no "answer", or an empty list of "answers". {_ROW}')
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise DataError(f"{where}: every answer must be text that is not empty; put numbers in quotes.")
    if document is not None and not isinstance(document, str):
        raise DataError(f'{where}: "document" must be a document id in quotes, or left away.')
    return Question(question, tuple(answers), document)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not valid UTF-8 at byte {error.start}. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON ({error.msg}, column {error.colno}). {_ROW}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object. {_ROW}")
    return row


def build_prompt(tokenizer: Any, question: str, document_text: str | None = None) -> Prompt:
    """The question as a user turn of the chat template, or as `Question: …` and `Answer:` without one.

    A document text goes before it, with a blank line between. Models that think aloud first are asked not
    to, since the answer has to come within a few words.
    """
    text = question if tokenizer.chat_template else f"Question: {question}\nAnswer:"
    text = text if document_text is None else f"{document_text}\n\n{text}"
    if not tokenizer.chat_template:
        ids = tokenizer(text)["input_ids"]
        # A tokenizer that closes every text with EOS would end the prompt before the answer.
        return Prompt(text, tuple(ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids))
    messages = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    # The template writes BOS and the like itself.
    return Prompt(rendered, tuple(tokenizer(rendered, add_special_tokens=False)["input_ids"]))


def answer_questions(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    documents: Mapping[str, str] | None,
    setting: Setting,
    max_length: int,
    max_new_tokens: int = 32,
    batch_tokens: int = 8192,
) -> list[Answer]:
    """Greedy answers, one for each question and in their order; see `Answer.left_out` for those not asked.

    Without a chat template an answer ends at its first line break. `documents` are texts by id, needed for
    open book; `max_length` bounds prompt and answer together, in tokens.
    """
    template = build_prompt(tokenizer, "{question}", "{document}" if setting == "open_book" else None).text
    asking = Asking(template, max_length, max_new_tokens)
    asked = [_ask(tokenizer, question, documents or {}, setting, asking) for question in questions]
    completions = iter(
        generate_greedy(
            model,
            tokenizer,
            [ids for answer, ids in asked if answer.left_out is None],
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
            extra_eos_ids=() if tokenizer.chat_template else _line_break_ids(tokenizer),
        )
    )
    return [
        answer if answer.left_out else replace(answer, text=_answer_text(tokenizer, next(completions)))
        for answer, _ in asked
    ]


def _ask(
    tokenizer: Any, question: Question, documents: Mapping[str, str], setting: Setting, asking: Asking
) -> tuple[Answer, tuple[int, ...]]:
    document = None
    if setting == "open_book":
        document = None if question.document is None else documents.get(question.document)
        if document is None:
            return Answer(question, "", "", asking, left_out="document_missing"), ()
    prompt = build_prompt(tokenizer, question.question, document)
    too_long = len(prompt.ids) + asking.max_new_tokens > asking.max_length
    return Answer(question, prompt.text, "", asking, left_out="too_long" if too_long else None), prompt.ids


def _line_break_ids(tokenizer: Any) -> list[int]:
    # Spares the tokens after the answer; line breaks inside other tokens are cut from the text.
    last = {tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in ("\n", "\n\n")}
    return [token for token in last if tokenizer.decode([token]).endswith("\n")]


def _answer_text(tokenizer: Any, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text.strip() if tokenizer.chat_template else text.split("\n", 1)[0].strip()


def normalised(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces.

    >>> normalised("The  Denver-Broncos, a team!")
    'denverbroncos team'
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(text: str, expected: Sequence[str]) -> float:
    """1.0 if the text is one of the expected answers after normalisation, else 0.0.

    >>> exact_match("the Broncos.", ["Denver Broncos", "Broncos"]), exact_match("Bronco", ["Broncos"])
    (1.0, 0.0)
    """
    return float(normalised(text) in [normalised(answer) for answer in expected])


def token_f1(text: str, expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall in words, the best over the expected answers, in [0, 1].

    Two texts that are both empty after normalisation agree.

    >>> token_f1("Denver won", ["the Denver Broncos"])  # 1 of 2 words written, 1 of 2 expected
    0.5
    >>> token_f1("Denver", ["Denver Colorado Broncos", "x"])  # precision 1, recall 1/3
    0.5
    >>> token_f1("The", ["a"]), token_f1("", ["Denver"])
    (1.0, 0.0)
    """
    return max(_f1(normalised(text).split(), normalised(answer).split()) for answer in expected)


def _f1(words: list[str], expected: list[str]) -> float:
    if not words or not expected:
        return float(words == expected)
    shared = (Counter(words) & Counter(expected)).total()
    return 2 * shared / (len(words) + len(expected))


def question_scores(before: list[Answer] | None, after: list[Answer], setting: Setting) -> list[Score]:
    """Exact match and token F1 over the questions that were asked, as fractions.

    A score with n = 0 says that all of them were left out; `details["left_out"]` counts them by reason.
    """
    pairs = [(old, new) for old, new in _paired(before, after) if new.left_out is None]
    left_out = Counter(answer.left_out for answer in after if answer.left_out)
    details = _details(after[0].asking, dict(left_out))
    return [_score(metric, pairs, setting, details) for metric in ("exact_match", "token_f1")]


def _score(
    metric: str, pairs: Sequence[tuple[Answer | None, Answer]], setting: Setting, details: Mapping[str, Any]
) -> Score:
    after = [getattr(new, metric) for _, new in pairs]
    before = [getattr(old, metric) for old, _ in pairs if old]
    return Score(
        task=f"questions/{setting}",
        metric=f"{metric}_frac",
        version=VERSION,
        n=len(pairs),
        before=estimate(before) if before else None,
        after=estimate(after) if after else None,
        change=paired_change(before, after) if before else None,
        better="higher",
        details=details,
    )


def _details(asking: Asking, left_out: dict[str, int]) -> dict[str, Any]:
    return {
        "prompt_template": asking.prompt_template,
        "prompt_template_sha256": hashlib.sha256(asking.prompt_template.encode()).hexdigest(),
        "decoding": "greedy",
        "max_new_tokens": asking.max_new_tokens,
        "max_length_tokens": asking.max_length,
        "left_out": left_out,
    }


def answer_rows(before: list[Answer] | None, after: list[Answer], setting: Setting) -> list[dict[str, Any]]:
    """What was asked and answered, a row a question, as plain data; questions left out have no row."""
    return [
        {
            "setting": setting,
            "question": new.question.question,
            "expected": list(new.question.answers),
            "document": new.question.document,
            "prompt": new.prompt,
            "before": None if old is None else old.text,
            "after": new.text,
            "before_correct": None if old is None else bool(old.exact_match),
            "after_correct": bool(new.exact_match),
        }
        for old, new in _paired(before, after)
        if new.left_out is None
    ]


def _paired(before: list[Answer] | None, after: list[Answer]) -> list[tuple[Answer | None, Answer]]:
    assert after, "scores of no questions"
    if before is None:
        return [(None, new) for new in after]
    pairs = list(zip(before, after, strict=True))
    for old, new in pairs:
        asked = [(answer.question, answer.prompt, answer.left_out) for answer in (old, new)]
        assert asked[0] == asked[1], "before and after are the same questions, asked in the same words"
    return [(old, new) for old, new in pairs]
