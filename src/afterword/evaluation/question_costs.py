"""What an answer costs: the tokens of its prompt, FLOPs by the formula of METHODS §1, and seconds on this machine.

Questions are answered in batches, so seconds are those of all of them, shared among them. What choosing among given
answers takes is in none of it: a model that is served writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afterword.evaluation.measure import VERSIONS, Measured, Models, Values
from afterword.models import ModelSize, size_of
from afterword.models.generation import token_ids
from afterword.types import Estimate, Score


@dataclass(frozen=True)
class Written:
    """Answers that were written, in numbers. By side: `before` and `after`."""

    task: str
    prompts: Sequence[int]
    """Tokens of each prompt."""
    answers: Mapping[str, Sequence[int]]
    """Tokens of each answer, with the one that ended it."""
    seconds: Mapping[str, float | None]
    """What all of them took together; None where they were there from before."""


def answer_length(tokenizer: Any, text: str, most: int) -> int:
    """The tokens of an answer with the one that ended it, of which there are at most so many."""
    return min(len(token_ids(tokenizer, text)) + 1, most)


def answering_flops(size: ModelSize, prompt_tokens: int, answer_tokens: int) -> float:
    """2 N for a token that is read and 2 H V for one that is written. The last one written is not read.

    Attention's own products are left out, as for training.

    By hand, for N = 10, H = 2, V = 5: a prompt of 7 tokens and an answer of 3 are 9 read, 180, and 3 written, 60.

    >>> answering_flops(ModelSize(10, 2, 5), 7, 3)
    240.0
    """
    read = prompt_tokens + answer_tokens - 1
    return float(2 * size.backbone * read + 2 * size.hidden * size.vocabulary * answer_tokens)


def costs(models: Models, written: Written) -> Measured:
    """`prompt_tokens`, `answer_gflops` and `answer_seconds` of a question."""
    if not written.prompts:
        return Measured()
    size = size_of(models.reference)
    gflops = {
        side: [answering_flops(size, *each) / 1e9 for each in zip(written.prompts, lengths, strict=True)]
        for side, lengths in written.answers.items()
    }
    prompts = dict.fromkeys(written.answers, written.prompts)
    both = {"prompt_tokens": prompts, "answer_gflops": gflops}
    values = [
        Values(metric=metric, task=written.task, before=by_side.get("before"), after=by_side.get("after"))
        for metric, by_side in both.items()
    ]
    return Measured(values, scores=[_seconds(written)] if any(written.seconds.values()) else [])


def _seconds(written: Written) -> Score:
    """No interval: what a batch took cannot be told apart by question."""
    count = len(written.prompts)
    before, after = (
        Estimate(took / count, None) if (took := written.seconds.get(side)) is not None else None
        for side in ("before", "after")
    )
    return Score(
        task=written.task,
        metric="answer_seconds",
        version=VERSIONS["retrieval"],
        n=count,
        before=before,
        after=after,
        better="lower",
    )
