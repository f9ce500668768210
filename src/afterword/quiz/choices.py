"""Wrong answers for choice by likelihood: of the kind of the right one, from the documents, and close to it in form."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from afterword.evaluation.right_answers import normalised, says
from afterword.quiz.facts import Fact
from afterword.quiz.spans import Kind, spans_of
from afterword.types import Document

CHOICES = 3
"""Beside the right one: a choice of four."""
_NEAR = 12
"""Of those that are most like the right one in form, the wrong ones are drawn."""
Pool = dict[Kind, list[str]]
"""Answers by kind, each once."""


def pool_of(documents: Iterable[Document], facts: Iterable[Fact], language: str) -> Pool:
    """What could be answered: all that stands in the documents by its form, and the answers that models chose."""
    pool: dict[Kind, dict[str, str]] = {}
    found = [span for document in documents for spans in spans_of(document.text, language) for span in spans]
    for span in [*found, *(fact.span for fact in facts)]:
        pool.setdefault(span.kind, {}).setdefault(normalised(span.answer), span.answer)
    return {kind: list(answers.values()) for kind, answers in pool.items()}


def with_choices(facts: Sequence[Fact], pool: Pool, seed: int) -> list[Fact]:
    """The facts with three wrong answers each; a fact that has fewer candidates of its kind gets none."""
    return [replace(fact, choices=_drawn(fact, pool, seed)) for fact in facts]


def _drawn(fact: Fact, pool: Pool, seed: int) -> tuple[str, ...]:
    rng = np.random.default_rng([seed, *fact.id.encode()])
    candidates = [answer for answer in pool.get(fact.span.kind, ()) if could_be(answer, fact)]
    shuffled = [candidates[i] for i in rng.permutation(len(candidates))]
    near = sorted(shuffled, key=lambda answer: _distance(answer, fact.span.answer))[:_NEAR]
    chosen = list[str]()
    # What stands inside of others comes last, or it would leave no room for them: `May 2025`, beside days of it.
    inside = [any(_holds(other, answer) for other in near if other != answer) for answer in near]
    for i in sorted(rng.permutation(len(near)), key=lambda i: inside[i]):
        if len(chosen) < CHOICES and not any(_holds(near[i], other) or _holds(other, near[i]) for other in chosen):
            chosen.append(near[i])
    return tuple(chosen) if len(chosen) == CHOICES else ()


def could_be(answer: str, fact: Fact) -> bool:
    """Whether an answer is wrong for a fact, and cannot be told from the right one by the words of the question.

    Neither holds the other, the sentence of the fact does not say it, nor does a question.
    """
    right = fact.span.answer
    said = (fact.span.sentence, *(wording.question for wording in fact.wordings))
    return not (_holds(answer, right) or _holds(right, answer) or any(says(text, answer) for text in said))


def _holds(text: str, other: str) -> bool:
    return normalised(other) in normalised(text)


def _distance(answer: str, right: str) -> tuple[int, int]:
    return abs(len(answer.split()) - len(right.split())), abs(len(answer) - len(right))
