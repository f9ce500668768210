"""Questions with short answers about the documents, asked closed book and open book.

The one rule: a prompt is asked whole or not at all. Open book is the ceiling that learning is held against,
so a question whose document is missing or does not fit is left out and counted, never asked with less.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from afterword.data import as_words
from afterword.evaluation.choices import Likelihoods, TokenIds, is_first_likeliest, likelihoods
from afterword.evaluation.measure import Inputs, Measured, Models, Values
from afterword.evaluation.question_costs import Written, answer_length, costs
from afterword.evaluation.question_file import Question
from afterword.evaluation.read_once import Put, is_worth_sharing, written_and_likely
from afterword.evaluation.right_answers import exact_match, said, says, token_f1
from afterword.models.generation import by_template, end_of_turn, ends_of, generate, prompt_ids, token_ids, user_turn
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
class Asked:
    """A question as it is put, in prompts."""

    question: Question
    place: int
    """Among the questions that there were."""
    to_write: str
    """With the instruction."""
    to_choose: str
    """Without it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What one model made of a question."""

    text: str
    likelihoods: Likelihoods
    """Of the candidates; of none where there is nothing to choose from."""


@dataclass(frozen=True)
class Answers:
    """What became of questions that were put in one setting."""

    setting: str
    """`closed_book`, `open_book` or `retrieved`."""
    asked: Sequence[Asked]
    sides: Mapping[str, Sequence[Answered]]
    """`before` and `after`, each in the order of `asked`."""
    seconds: Mapping[str, float | None]
    """What writing all answers took, by side; None where it was not told apart from choosing."""
    details: Mapping[str, Any]
    """How they were put; `left_out` counts those that were not asked, by reason."""


_METRICS: dict[str, Callable[[Question, Answered], float]] = {
    "said_frac": lambda asked, answer: said(answer.text, asked.expected, _others(asked)),
    "exact_match_frac": lambda asked, answer: exact_match(answer.text, asked.expected),
    "token_f1_frac": lambda asked, answer: token_f1(answer.text, asked.expected),
    "choice_correct_frac": lambda asked, answer: float(is_first_likeliest(answer.likelihoods.per_token)),
}
"""The value of an answer; by choice only where the question offers choices."""


def closed_book(models: Models, inputs: Inputs) -> Measured:
    """Questions asked without their documents."""
    return ask(models, inputs.questions, "closed_book", **_how(inputs), ready=inputs.ahead.answers.get("closed_book"))


def open_book(models: Models, inputs: Inputs) -> Measured:
    """The same questions, each behind its document; nothing where no question names one that was read."""
    texts = document_texts(inputs)
    if not texts:
        return Measured(notes=["No question names a document that was read, so there is no open-book ceiling."])
    return ask(
        models, inputs.questions, "open_book", texts, **_how(inputs), ready=inputs.ahead.answers.get("open_book")
    )


def document_texts(inputs: Inputs) -> dict[str, str]:
    """Of the documents that questions are about, by id."""
    asked_about = {question.document for question in inputs.questions}
    documents = inputs.documents.get("documents", ())
    return {document.id: document.text for document in documents if document.id in asked_about}


def ask(
    models: Models,
    questions: Sequence[Question],
    setting: str,
    documents: Mapping[str, str] | None = None,
    *,
    instruction: str = "",
    with_costs: bool = False,
    ready: Mapping[str, Sequence[Answered]] | None = None,
) -> Measured:
    """Greedy answers of both models and their choices, as fractions that are right, and a row for each question asked.

    `said_frac`: the answer says what is expected, and nothing that is offered as wrong; `exact_match_frac`;
    `token_f1_frac`; and of the questions that have choices, `choice_correct_frac`: the right one is likelier than each
    of the others, by nats per token, behind the question without the instruction, which is about writing. In a row,
    `correct` is that the answer was said.

    Open book with `documents`, texts by id; closed book without. The questions left out are counted by reason,
    `document_missing` or `too_long`, in `details["left_out"]`; a score with n = 0 says that all of them were.
    `with_costs`: also what an answer costs. `ready`: what was answered before, by side.
    """
    texts = None if documents is None else texts_of(questions, documents)
    answers = answers_to(models, questions, setting, texts, instruction=instruction, alone=with_costs, ready=ready)
    values = list(values_of(answers))
    scores = costs_of(models, answers) if with_costs else Measured()
    return Measured([*values, *scores.values], answers.details, rows_of(answers), scores=scores.scores)


def texts_of(questions: Sequence[Question], documents: Mapping[str, str] | None) -> list[str | None]:
    """What stands before each question: "" for nothing, None where its document is missing."""
    return ["" if documents is None else documents.get(question.document or "") for question in questions]


def answers_to(
    models: Models,
    questions: Sequence[Question],
    setting: str,
    texts: Sequence[str | None] | None = None,
    *,
    instruction: str = "",
    alone: bool = False,
    ready: Mapping[str, Sequence[Answered]] | None = None,
) -> Answers:
    """What both models make of the questions, each behind its text: "" for none, None where it is missing.

    Closed book where there are no texts at all. `alone`: each prompt is read for itself, as where it is served, and
    seconds are known; else what several begin with is read once. `ready`: what was answered before, by side.
    """
    behind = [""] * len(questions) if texts is None else texts
    put = puts(models, questions, behind, instruction)
    asked = [each for each in put if isinstance(each, Asked)]
    if ready is None:
        found = {side: _answers(models, side, asked, setting, alone) for side in models.sides}
    else:
        found = {side: (said, None) for side, said in ready.items()}
    placeholder = None if texts is None else "{document}"
    details = {
        "prompt_template": build_prompt(models.tokenizer, "{question}", placeholder, instruction),
        "decoding": "greedy",
        "max_new_tokens": ANSWER_TOKENS,
        "max_length_tokens": models.max_length,
        "left_out": dict(Counter(reason for reason in put if isinstance(reason, str))),
    }
    sides = {side: said for side, (said, _) in found.items()}
    seconds = {side: took for side, (_, took) in found.items()}
    return Answers(setting, asked, sides, seconds, details)


def values_of(answers: Answers) -> Iterator[Values]:
    """Every metric of the answers, a value for each question that it is of."""
    asked, sides = answers.asked, answers.sides
    for metric, value in _METRICS.items():
        rows = [i for i, each in enumerate(asked) if each.question.choices or metric != "choice_correct_frac"]
        found = {side: [value(asked[i].question, said[i]) for i in rows] for side, said in sides.items()}
        units = units_of([asked[i] for i in rows])
        # Of questions that were left out whole, a score says so.
        if rows or (not asked and metric != "choice_correct_frac"):
            yield Values(metric=metric, before=found.get("before") or None, after=found["after"] or None, units=units)


def units_of(asked: Sequence[Asked]) -> list[Hashable]:
    """What each question is about: the same for those that are not independent."""
    return [each.question.unit or each.place for each in asked]


def costs_of(models: Models, answers: Answers, *, search_seconds: float = 0.0) -> Measured:
    """What an answer costs. `search_seconds`: what finding the texts of all questions took."""
    tokenizer = models.tokenizer
    prompts = [len(prompt_ids(tokenizer, each.to_write)) for each in answers.asked]
    lengths = {
        side: [answer_length(tokenizer, answered.text, ANSWER_TOKENS) for answered in said]
        for side, said in answers.sides.items()
    }
    seconds = {side: None if took is None else took + search_seconds for side, took in answers.seconds.items()}
    return costs(models, Written(f"questions/{answers.setting}", prompts, lengths, seconds))


def rows_of(answers: Answers) -> list[dict[str, Any]]:
    """A row of scores.json for each question that was asked."""
    return [
        _row(answers.setting, each, {side: said[i] for side, said in answers.sides.items()})
        for i, each in enumerate(answers.asked)
    ]


def _how(inputs: Inputs) -> dict[str, Any]:
    # What retrieval costs is told beside what the others do.
    settings = inputs.settings
    return {"instruction": settings.question_instruction, "with_costs": bool(settings.retrieve)}


def _others(question: Question) -> list[str]:
    """Wrong answers that a right one has no reason to say: what the question names itself may come back."""
    return [choice for choice in question.choices if not says(question.question, choice)]


def _row(setting: str, asked: Asked, sides: Mapping[str, Answered]) -> dict[str, Any]:
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


def puts(
    models: Models, questions: Sequence[Question], texts: Sequence[str | None], instruction: str
) -> list[Asked | Literal["document_missing", "too_long"]]:
    """Every question in prompts behind its text; or why it is not asked."""
    pairs = enumerate(zip(questions, texts, strict=True))
    return [_put(models, question, place, text, instruction) for place, (question, text) in pairs]


def _put(
    models: Models, question: Question, place: int, text: str | None, instruction: str
) -> Asked | Literal["document_missing", "too_long"]:
    """A question in prompts behind a text, "" for none; or why it is not asked."""
    if text is None:
        return "document_missing"
    write, choose = (build_prompt(models.tokenizer, question.question, text or None, how) for how in (instruction, ""))
    longest = max([ANSWER_TOKENS, *map(len, _candidates(models.tokenizer, question))])
    if len(prompt_ids(models.tokenizer, write)) + longest > models.max_length:
        return "too_long"
    return Asked(question, place, write, choose)


def _candidates(tokenizer: Any, question: Question) -> list[list[int]]:
    lead = answer_lead(tokenizer)
    return [token_ids(tokenizer, lead + text) for text in question.candidates]


def in_tokens(tokenizer: Any, asked: Asked) -> Put:
    """A question as it is read."""
    write, choose = (prompt_ids(tokenizer, prompt) for prompt in (asked.to_write, asked.to_choose))
    return Put(write, choose, _candidates(tokenizer, asked.question), ANSWER_TOKENS)


def _answers(
    models: Models, side: str, asked: Sequence[Asked], setting: str, alone: bool
) -> tuple[list[Answered], float | None]:
    """The answers of a side, and the seconds that writing them took."""
    model, tokenizer, what = models.of_side(side), models.tokenizer, f"{setting} {side}"
    put = [in_tokens(tokenizer, each) for each in asked]
    if not alone and is_worth_sharing(model, put):
        with _progress(what, [each.to_write for each in put]) as progress:
            found = written_and_likely(model, put, answer_ends(model, tokenizer), progress.advance)
        return [answered(tokenizer, *each) for each in found], None
    started = time.perf_counter()
    texts = _written(model, tokenizer, [each.to_write for each in put], what)
    seconds = time.perf_counter() - started
    to_choose = [(each.to_choose, each.candidates) for each in put]
    with Progress(f"{what}: choices", sum(bool(candidates) for _, candidates in to_choose)) as progress:
        likely = likelihoods(model, to_choose, batch_tokens=models.micro_batch_tokens, advance=progress.advance)
    return [Answered(text, each) for text, each in zip(texts, likely, strict=True)], seconds


def answered(tokenizer: Any, written: TokenIds, likely: Likelihoods) -> Answered:
    """An answer of the tokens that were written."""
    return Answered(_text(tokenizer, written), likely)


def answer_ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens that end an answer."""
    return ends_of(model, tokenizer, _ends(tokenizer))


def written_answers(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    """What a model answers to each question, greedily and within ANSWER_TOKENS, by its chat template if it has one."""
    prompts = [prompt_ids(tokenizer, build_prompt(tokenizer, question)) for question in questions]
    return _written(model, tokenizer, prompts, "questions")


def _written(model: Any, tokenizer: Any, prompts: Sequence[TokenIds], what: str) -> list[str]:
    with _progress(what, prompts) as progress:
        written = generate(
            model,
            tokenizer,
            prompts,
            max_new_tokens=ANSWER_TOKENS,
            extra_eos_ids=_ends(tokenizer),
            advance=progress.advance,
        )
    return [_text(tokenizer, answer) for answer in written]


def _progress(what: str, prompts: Sequence[TokenIds]) -> Progress:
    cost = f"{len(prompts):,} prompts, {sum(map(len, prompts)):,} tokens, up to {ANSWER_TOKENS} new ones each"
    return Progress(f"{what}: answers", len(prompts), cost=cost)


def _ends(tokenizer: Any) -> list[int]:
    """What ends an answer beside EOS: without a chat template its first line break.

    Line breaks spare the tokens after the answer; those inside other tokens are cut from the text.
    """
    return end_of_turn(tokenizer) if tokenizer.chat_template else line_ends(tokenizer)


def _text(tokenizer: Any, answer: TokenIds) -> str:
    text = tokenizer.decode(answer, skip_special_tokens=True)
    return (text if tokenizer.chat_template else text.split("\n", 1)[0]).strip()
