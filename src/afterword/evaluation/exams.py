"""An exam taken before and after: every question answered several times, and the answers vote.

The one rule: what is drawn for a question follows from the model, the prompt, the sampling and the seed, never from
what is asked beside it; both models draw with the same random numbers, and are paired over questions.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from afterword.data import as_words
from afterword.errors import ConfigError
from afterword.evaluation.exam_answers import cut_at, is_tied, letter_of, number_of, voted
from afterword.evaluation.exam_files import Exam, ExamItem
from afterword.evaluation.measure import Inputs, Measured, Models, Row, Values
from afterword.settings.exams import ExamSettings, exams_of
from afterword.storage.hashes import text_sha256
from afterword.types import Request, Sampling
from afterword.writing import as_conversation, open_writer, prompt, room_for

SIDES = ("before", "after")
_PLACE = re.compile(r"\{(subject|question|options)\}")
_PER_SEED = 1000
"""Seeds of the answers to a question, for each seed of `evaluate`: more than there can be answers."""

Turns = tuple[tuple[str, str], ...]
Votes = Sequence[str | None]
"""What each answer to a question chose, by its mark; None: nothing that could be read."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as a model reads it, and how long an answer may be."""

    item: ExamItem
    text: str
    room_tokens: int


def taken(name: str, models: Models, inputs: Inputs) -> Measured:
    """The measure of one exam. `correct_frac`: the vote is the right option; `sample_correct_frac`: single answers are.

    Of all answers, `unparsed_frac` chose nothing that could be read; of all votes, `tied_frac` are ties. Questions that
    leave no room for an answer in the context are left out and counted, `too_long`, in `details["left_out"]`.
    """
    exam, how = inputs.exams[name], exams_of(inputs.settings.exams or {})[name]
    turns = prompt_turns(name, how)
    put = [_put(models, item, turns, how) for item in exam.items]
    asked = [each for each in put if each.room_tokens > 0]
    seed = inputs.settings.seed
    votes = {
        side: _votes(models.of_side(side), models.tokenizer, exam, asked, how, seed, f"{name} {side}")
        for side in models.sides
    }
    left_out = dict(Counter(exam.left_out) + Counter({"too_long": len(put) - len(asked)}))
    details = how.model_dump(mode="json") | {
        "prompt_template": "\n\n".join(content for _, content in turns),
        "prompt_sha256": text_sha256(repr(turns)),
        "seed": seed,
        "left_out": left_out,
    }
    rows = [_row(name, each, {side: votes[side][i] for side in votes}, how) for i, each in enumerate(asked)]
    return Measured(list(_values(asked, votes, how)), details, answers=rows)


def prompt_turns(name: str, how: ExamSettings) -> Turns:
    """The prompt with its places, `{subject}`, `{question}` and `{options}`: that of the package, or a person's own.

    A file of one's own is the user's turn as it stands; lines `## system` and `## user` begin turns. ConfigError where
    it cannot be read, or has no place for the question.
    """
    if how.prompt_file is None:
        turns = prompt(f"exam_{name}").turns
        # As a line of its own: what follows it is the answer.
        return (*turns[:-1], (turns[-1][0], f"{turns[-1][1]}\n")) if how.prompt == "raw" else turns
    try:
        text = Path(how.prompt_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"exams.{name}.prompt_file: {how.prompt_file!r} cannot be read ({error}).") from error
    if "{question}" not in text:
        problem = f"exams.{name}.prompt_file: {how.prompt_file!r} has no place for the question"
        raise ConfigError(f"{problem}. Write {{question}} where it belongs.")
    parts = re.split(r"^## (system|user)\n", text, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return tuple((role, content.strip()) for role, content in pairs) or (("user", text),)


def _put(models: Models, item: ExamItem, turns: Turns, how: ExamSettings) -> _Asked:
    tokenizer = models.tokenizer
    options = "\n".join(f"{number}. {option}" for number, option in enumerate(item.options, start=1))
    values = {"subject": item.subject, "question": item.question, "options": options}
    words = {place: as_words(tokenizer, value) for place, value in values.items()}
    filled = [(role, _PLACE.sub(lambda place: words[place[1]], content)) for role, content in turns]
    if how.prompt == "chat":
        # As a text: of a reply to a conversation, its thoughts would be gone, and with them answers that stand there.
        text = as_conversation(tokenizer, filled, thinking=how.enable_thinking)
    else:
        text = "\n\n".join(content for _, content in filled)
    limit = min(how.context or models.max_length, models.max_length)
    request = Request(sampling=Sampling(max_new_tokens=how.new_tokens), text=text)
    return _Asked(item, text, room_for(tokenizer, request, limit))


def _votes(
    model: Any, tokenizer: Any, exam: Exam, asked: Sequence[_Asked], how: ExamSettings, seed: int, what: str
) -> list[Votes]:
    """What a model's answers to each question chose."""
    samples = how.samples if how.temperature else 1
    requests = [
        Request(
            sampling=Sampling(max_new_tokens=each.room_tokens, temperature=how.temperature, top_p=how.top_p),
            text=each.text,
            seed=_PER_SEED * seed + number,
            about=f"{exam.name} {each.item.id}",
        )
        for each in asked
        for number in range(samples)
    ]
    with open_writer(lambda: model, tokenizer) as writer:
        replies = writer.write(requests, what)
    read = partial(number_of if exam.numbered else letter_of, reading=how.reading)
    chosen = [read(cut_at(reply.text, how.stop)) for reply in replies]
    return [chosen[at : at + samples] for at in range(0, len(chosen), samples)]


def _values(asked: Sequence[_Asked], votes: Mapping[str, Sequence[Votes]], how: ExamSettings) -> Iterator[Values]:
    of_one = {
        "correct_frac": lambda right, given: float(voted(given, how.tie) == right),
        "sample_correct_frac": lambda right, given: sum(vote == right for vote in given) / len(given),
        "unparsed_frac": lambda _, given: sum(vote is None for vote in given) / len(given),
        "tied_frac": lambda _, given: float(is_tied(given)),
    }
    units = [each.item.id for each in asked]
    for metric, value in of_one.items():
        sides = {
            side: [value(each.item.right, given) for each, given in zip(asked, of, strict=True)] or None
            for side, of in votes.items()
        }
        # Of an exam that was left out whole, one score says so.
        if asked or metric == "correct_frac":
            yield Values(metric=metric, before=sides.get("before"), after=sides["after"], units=units)


def _row(name: str, asked: _Asked, votes: Mapping[str, Votes], how: ExamSettings) -> Row:
    item = asked.item
    options = "".join(f"\n{number}. {option}" for number, option in enumerate(item.options, start=1))
    row: dict[str, Any] = {"setting": f"exams/{name}", "id": item.id, "question": item.question + options}
    row |= {"expected": [item.right], "document": None}
    row |= {side: ", ".join(vote or "–" for vote in votes[side]) if side in votes else None for side in SIDES}
    return row | {
        f"{side}_correct": voted(votes[side], how.tie) == item.right if side in votes else None for side in SIDES
    }
