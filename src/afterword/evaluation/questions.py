"""Questions with short answers about the documents, asked closed book and open book.

The one rule: a prompt is asked whole or not at all. Open book is the ceiling that learning is held against,
so a question whose document is missing or does not fit is left out and counted, never asked with less.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from afterword.data import as_words
from afterword.evaluation.choices import Likelihoods, is_first_likeliest, likelihoods
from afterword.evaluation.measure import Inputs, Measured, Models, Values
from afterword.evaluation.question_file import Question
from afterword.evaluation.right_answers import exact_match, said, says, token_f1
from afterword.models.generation import by_template, end_of_turn, generate, prompt_ids, token_ids, user_turn
from afterword.progress import Progress

ANSWER_TOKENS = 48
"""Room for an answer, in tokens."""
SIDES = ("before", "after")


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


def line_ends(tokenizer: Any) -> list[int]:
    """The tokens that are nothing but the end of a line, of one or two breaks."""
    breaks = {token_ids(tokenizer, text)[-1] for text in ("\n", "\n\n")}
    return [token for token in breaks if tokenizer.decode([token]).endswith("\n")]


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


_METRICS: dict[str, Callable[[Question, _Answered], float]] = {
    "said_frac": lambda asked, answer: said(answer.text, asked.expected, _others(asked)),
    "exact_match_frac": lambda asked, answer: exact_match(answer.text, asked.expected),
    "token_f1_frac": lambda asked, answer: token_f1(answer.text, asked.expected),
    "choice_correct_frac": lambda asked, answer: float(is_first_likeliest(answer.likelihoods.per_token)),
}
"""The value of an answer; by choice only where the question offers choices."""


def closed_book(models: Models, inputs: Inputs) -> Measured:
    """Questions asked without their documents."""
    return ask(models, inputs.questions, "closed_book", instruction=inputs.settings.question_instruction)


def open_book(models: Models, inputs: Inputs) -> Measured:
    """The same questions, each behind its document; nothing where no question names one that was read."""
    asked_about = {question.document for question in inputs.questions}
    documents = inputs.documents.get("documents", ())
    texts = {document.id: document.text for document in documents if document.id in asked_about}
    if not texts:
        return Measured(notes=["No question names a document that was read, so there is no open-book ceiling."])
    return ask(models, inputs.questions, "open_book", texts, instruction=inputs.settings.question_instruction)


def ask(
    models: Models,
    questions: Sequence[Question],
    setting: str,
    documents: Mapping[str, str] | None = None,
    *,
    instruction: str = "",
) -> Measured:
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
    # A model alone stands where the adapted one would.
    sides = {
        side: _answers(
            models.adapted if models.are_two and side == "after" else models.reference,
            models,
            asked,
            f"{setting} {side}",
        )
        for side in (SIDES if models.are_two else SIDES[1:])
    }
    details = {
        "prompt_template": build_prompt(
            models.tokenizer, "{question}", None if documents is None else "{document}", instruction
        ),
        "decoding": "greedy",
        "max_new_tokens": ANSWER_TOKENS,
        "max_length_tokens": models.max_length,
        "left_out": dict(Counter(reason for reason in put if isinstance(reason, str))),
    }
    answered = [{side: sides[side][i] for side in sides} for i in range(len(asked))]
    rows = [_row(setting, each, answers) for each, answers in zip(asked, answered, strict=True)]
    return Measured(list(_values(asked, sides)), details, answers=rows)


def _values(asked: Sequence[_Asked], sides: Mapping[str, Sequence[_Answered]]) -> Iterator[Values]:
    for metric, value in _METRICS.items():
        rows = [i for i, each in enumerate(asked) if each.question.choices or metric != "choice_correct_frac"]
        found = {side: [value(asked[i].question, answers[i]) for i in rows] for side, answers in sides.items()}
        # Of questions that were left out whole, a score says so.
        if rows or (not asked and metric != "choice_correct_frac"):
            yield Values(metric=metric, before=found.get("before") or None, after=found["after"] or None)


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
    tokenizer = models.tokenizer
    texts = _written(model, tokenizer, [prompt_ids(tokenizer, each.to_write) for each in asked], what)
    to_choose = [(prompt_ids(tokenizer, each.to_choose), _candidates(tokenizer, each.question)) for each in asked]
    with Progress(f"{what}: choices", sum(bool(candidates) for _, candidates in to_choose)) as progress:
        likely = likelihoods(model, to_choose, batch_tokens=models.micro_batch_tokens, advance=progress.advance)
    return [_Answered(text, each) for text, each in zip(texts, likely, strict=True)]


def written_answers(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    """What a model answers to each question, greedily and within ANSWER_TOKENS, by its chat template if it has one."""
    prompts = [prompt_ids(tokenizer, build_prompt(tokenizer, question)) for question in questions]
    return _written(model, tokenizer, prompts, "questions")


def _written(model: Any, tokenizer: Any, prompts: Sequence[list[int]], what: str) -> list[str]:
    """Without a chat template an answer ends at its first line break."""
    plain = not tokenizer.chat_template
    # Line breaks spare the tokens after the answer; those inside other tokens are cut from the text.
    ends = line_ends(tokenizer) if plain else end_of_turn(tokenizer)
    cost = f"{len(prompts):,} prompts, {sum(map(len, prompts)):,} tokens, up to {ANSWER_TOKENS} new ones each"
    with Progress(f"{what}: answers", len(prompts), cost=cost) as progress:
        written = generate(
            model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS, extra_eos_ids=ends, advance=progress.advance
        )
    texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in written]
    return [(text.split("\n", 1)[0] if plain else text).strip() for text in texts]
