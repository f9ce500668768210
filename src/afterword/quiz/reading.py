"""What the model says to a question, with the text and without it, several times.

The one rule: a question is answered by samples, so that what it is kept for is how often, not whether once. No sample
is drawn that cannot change what is decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from afterword.data import as_words
from afterword.data.views import Writer
from afterword.evaluation.right_answers import said
from afterword.quiz.spans import spans_of, ways_to_say
from afterword.types import Request, Sampling
from afterword.writing import prompt


@dataclass(frozen=True, slots=True)
class Put:
    """A question, what it is put with, and what counts."""

    question: str
    answer: str
    text: str = ""
    """Read before it; empty: closed book."""
    others: tuple[str, ...] = ()
    """Answers that are wrong: said beside the right one, they count against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How often of how many samples."""

    samples: int
    needed: int
    """A question passes with as many right answers."""
    sampling: Sampling


def others_in(text: str, answer: str, kind: str) -> tuple[str, ...]:
    """What a text says of the same kind as an answer, and is not it: a reply that lists all of it tells nothing."""
    spans = (span for spans in spans_of(text) for span in spans)
    same = (span.answer for span in spans if span.kind == kind)
    return tuple(other for other in same if other.casefold() not in answer.casefold())


def passing(writer: Writer, put: Sequence[Put], rule: Rule, what: str) -> list[bool]:
    """Of every question whether it is answered right often enough."""
    right, asked = [0] * len(put), [0] * len(put)
    open_ = range(len(put))
    for seed in range(rule.samples):
        open_ = [i for i in open_ if right[i] < rule.needed <= right[i] + rule.samples - asked[i]]
        requests = [_request(writer, put[i], rule.sampling, seed) for i in open_]
        for i, written in zip(open_, writer.write(requests, f"{what}, sample {seed + 1}"), strict=True):
            asked[i] += 1
            right[i] += is_right(put[i], written.text)
    return [count >= rule.needed for count in right]


def is_right(put: Put, text: str) -> bool:
    """Whether the first line of a reply says the answer, and none of the others that the question does not name."""
    others = [other for other in put.others if not said(put.question, [other])]
    return bool(said(text.strip().partition("\n")[0], ways_to_say(put.answer), others))


def _request(writer: Writer, put: Put, sampling: Sampling, seed: int) -> Request:
    """Behind examples, as text: a small model answers shortly then."""
    asked = prompt("quiz_read" if put.text else "quiz_closed").turns[0][1]
    text = asked.format(question=put.question, text=" ".join(put.text.split()))
    return Request(sampling=sampling, text=as_words(writer.tokenizer, text), seed=seed)
