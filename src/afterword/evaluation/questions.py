"""Questions with short answers about the documents, asked closed book and open book.

The one rule: a prompt is asked whole or not at all. Open book is the ceiling that learning is held against,
so a question whose document is missing or does not fit is left out and counted, never asked with less.
Matching follows SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from afterword.errors import DataError
from afterword.evaluation.generation import generate, token_ids, user_turn
from afterword.evaluation.json_lines import read_rows
from afterword.evaluation.losses import Models
from afterword.evaluation.statistics import before_and_after
from afterword.types import Score

VERSION = 1
ANSWER_TOKENS = 32
"""Room for an answer, in tokens."""
SIDES = ("before", "after")
_ROW = 'Each line is one object: {"question": "…", "answer": "…"}, or "answers": ["…", …].'


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what counts as its answer."""

    question: str
    expected: tuple[str, ...]
    """What counts as right; the best match of any of them counts."""
    document: str | None = None
    """Id of the document that holds the answer."""


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a .jsonl file, plain or .gz. DataError, with file and line, for what is not one."""
    path = Path(path)
    questions = tuple(_question(where, row) for where, row in read_rows(path, _ROW))
    if not questions:
        raise DataError(f"{path}: holds no questions. {_ROW}")
    return questions


def _question(where: str, row: dict[str, Any]) -> Question:
    question, document, answers = row.get("question"), row.get("document"), row.get("answers", row.get("answer"))
    answers = [answers] if isinstance(answers, str) else answers
    for problem, wrong in {
        '"question" is missing or not text': not _is_text(question),
        'no "answer", or an empty list of "answers"': not isinstance(answers, list) or not answers,
        "every answer must be text that is not empty; put numbers in quotes": not all(map(_is_text, answers or ())),
        '"document" must be a document id in quotes, or left away': not isinstance(document, str | None),
    }.items():
        if wrong:
            raise DataError(f"{where}: {problem}. {_ROW}")
    return Question(row["question"], tuple(answers or ()), document)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def build_prompt(tokenizer: Any, question: str, document_text: str | None = None) -> str:
    """The question as a user turn of the chat template, or as `Question: …` and `Answer:` without one.

    A document text goes before it, with a blank line between.
    """
    text = question if tokenizer.chat_template else f"Question: {question}\nAnswer:"
    text = text if document_text is None else f"{document_text}\n\n{text}"
    return user_turn(tokenizer, text) if tokenizer.chat_template else text


def answer_lead(tokenizer: Any) -> str:
    """The white space between a prompt and the answer: a space without a chat template, and in some with one."""
    if not tokenizer.chat_template:
        return " "
    prompt, mark = user_turn(tokenizer, "?"), "@"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    between = whole.removeprefix(prompt).split(mark)[0] if whole.startswith(prompt) else ""
    return between if between.isspace() else ""


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt. A chat template writes BOS and the like itself."""
    if tokenizer.chat_template:
        return token_ids(tokenizer, prompt)
    ids = tokenizer(prompt, verbose=False)["input_ids"]
    # A tokenizer that closes every text with EOS would end the prompt before the answer.
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids


def ask(
    models: Models, questions: Sequence[Question], setting: str, documents: Mapping[str, str] | None = None
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Greedy answers of both models: exact match and token F1 as fractions, and a row for each question asked.

    Open book with `documents`, texts by id; closed book without. The questions left out are counted by reason,
    `document_missing` or `too_long`, in `details["left_out"]`; a score with n = 0 says that all of them were.
    """
    prompts = [_prompt(models, question, documents) for question in questions]
    asked = [(question, text) for question, (text, reason) in zip(questions, prompts, strict=True) if not reason]
    writers = (models.reference, models.adapted) if models.adapted else (None, models.reference)
    before, after = (_answers(writer, models.tokenizer, [text for _, text in asked]) for writer in writers)
    rows = [{"setting": setting, **asdict(question), "prompt": text} for question, text in asked]
    for row, old, new in zip(rows, before, after, strict=True):
        row |= {"before": old, "after": new}
        matches = {side: _matched(exact_match, [row], side) for side in SIDES}
        row |= {f"{side}_correct": match and bool(match[0]) for side, match in matches.items()}
    template = build_prompt(models.tokenizer, "{question}", None if documents is None else "{document}")
    limits = {"max_new_tokens": ANSWER_TOKENS, "max_length_tokens": models.max_length}
    left_out = dict(Counter(reason for _, reason in prompts if reason))
    details = {"prompt_template": template, "decoding": "greedy", **limits, "left_out": left_out}
    score = partial(Score, task=f"questions/{setting}", version=VERSION, n=len(rows), better="higher", details=details)
    matched = {metric.__name__: [_matched(metric, rows, side) for side in SIDES] for metric in (exact_match, token_f1)}
    return [score(metric=f"{name}_frac", **before_and_after(*sides)) for name, sides in matched.items()], rows


def _matched(metric: Callable[..., float], rows: Sequence[Mapping[str, Any]], side: str) -> list[float] | None:
    return [metric(row[side], row["expected"]) for row in rows if row[side] is not None] or None


def _prompt(models: Models, question: Question, documents: Mapping[str, str] | None) -> tuple[str, str | None]:
    """The prompt, and None or why it is not asked."""
    document = None if documents is None else documents.get(question.document or "")
    if documents is not None and document is None:
        return "", "document_missing"
    prompt = build_prompt(models.tokenizer, question.question, document)
    too_long = len(prompt_ids(models.tokenizer, prompt)) + ANSWER_TOKENS > models.max_length
    return prompt, "too_long" if too_long else None


def _answers(model: Any | None, tokenizer: Any, prompts: Sequence[str]) -> Sequence[str | None]:
    """Without a chat template an answer ends at its first line break."""
    if model is None:
        return [None] * len(prompts)
    ids, plain = [prompt_ids(tokenizer, prompt) for prompt in prompts], not tokenizer.chat_template
    # Line breaks spare the tokens after the answer; those inside other tokens are cut from the text.
    breaks = {token_ids(tokenizer, text)[-1] for text in ("\n", "\n\n")} if plain else ()
    ends = [token for token in breaks if tokenizer.decode([token]).endswith("\n")]
    written = generate(model, tokenizer, ids, max_new_tokens=ANSWER_TOKENS, extra_eos_ids=ends)
    texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in written]
    return [(text.split("\n", 1)[0] if plain else text).strip() for text in texts]


def normalised(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces.

    >>> normalised("The  Denver-Broncos, a team!")
    'denverbroncos team'
    """
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(text: str, expected: Sequence[str]) -> float:
    """1.0 if the text is one of the expected answers after normalisation, else 0.0.

    >>> exact_match("the Broncos.", ["Denver Broncos", "Broncos"]), exact_match("Bronco", ["Broncos"])
    (1.0, 0.0)
    """
    return float(normalised(text) in map(normalised, expected))


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
    shared = (Counter(words) & Counter(expected)).total()
    return 2 * shared / (len(words) + len(expected)) if words or expected else 1.0
