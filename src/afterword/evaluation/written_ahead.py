"""What several measures ask a model to write, in one batch: a step of thirty rows takes little longer than of ten.

The one rule: what is written to a prompt is what would be written to it for its measure alone, up to the rounding of
the arithmetic.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from afterword.evaluation.choices import Likelihoods
from afterword.evaluation.losses import own_samples_of
from afterword.evaluation.measure import Ahead, Inputs, Models
from afterword.evaluation.questions import Asked, answer_ends, answered, document_texts, in_tokens, puts, texts_of
from afterword.evaluation.read_once import Put, is_worth_sharing, written_and_likely
from afterword.models.generation import SHOWN_TOKENS, ends_of
from afterword.progress import Progress

_SAMPLES = "own_samples"
_Written = tuple[Sequence[int], Likelihoods]


def written_ahead(models: Models, inputs: Inputs, measures: Collection[str]) -> Ahead:
    """Answers from memory and with the documents, and those to the reference's own samples where drift is measured.

    Nothing where the measures ask for no two of them, or where a model cannot go on from what it has read.
    """
    asked = _asked(models, inputs) if "questions/open_book" in measures else {}
    if not asked:
        return Ahead()
    put = {name: [in_tokens(models.tokenizer, each) for each in of_it] for name, of_it in asked.items()}
    ahead = Ahead()
    if "drift/own_samples" in measures:
        samples = own_samples_of(models, inputs.settings)
        ahead = replace(ahead, samples=samples)
        put[_SAMPLES] = [_shown(sample.prompt_ids) for sample in samples[: inputs.settings.answered_samples]]
    found = dict[str, dict[str, list[_Written]]]()
    for side in models.sides:
        if not (of_side := _written(models, side, put)):
            return ahead
        found[side] = of_side
    answers = {
        name: {
            side: [answered(models.tokenizer, *each) for each in of_side.get(name, ())]
            for side, of_side in found.items()
        }
        for name in asked
    }
    if not all(_SAMPLES in of_side for of_side in found.values()):
        return replace(ahead, answers=answers)
    replies = {side: [written for written, _ in of_side[_SAMPLES]] for side, of_side in found.items()}
    return replace(ahead, answers=answers, replies=replies)


def _asked(models: Models, inputs: Inputs) -> dict[str, list[Asked]]:
    """Questions by setting; none where there are no documents, or where it is measured what an answer costs."""
    documents, instruction = document_texts(inputs), inputs.settings.question_instruction
    if inputs.settings.retrieve or not documents:
        return {}
    behind = {"closed_book": None, "open_book": documents}
    found = {
        name: puts(models, inputs.questions, texts_of(inputs.questions, texts), instruction)
        for name, texts in behind.items()
    }
    return {name: [each for each in of_it if isinstance(each, Asked)] for name, of_it in found.items()}


def _shown(prompt: Sequence[int]) -> Put:
    """A prompt that is answered, and behind which nothing is chosen."""
    return Put(prompt, prompt, (), SHOWN_TOKENS)


def _written(models: Models, side: str, put: Mapping[str, Sequence[Put]]) -> dict[str, list[_Written]]:
    """By what it is for; without the samples where they end otherwise than answers or do not fit, and else nothing."""
    model, tokenizer = models.of_side(side), models.tokenizer
    ends = answer_ends(model, tokenizer)
    longest = max((len(each.to_write) for each in put.get(_SAMPLES, ())), default=0)
    apart = ends != ends_of(model, tokenizer) or longest + SHOWN_TOKENS > models.max_length
    together = {name: of_it for name, of_it in put.items() if of_it and not (apart and name == _SAMPLES)}
    flat = [each for of_it in together.values() for each in of_it]
    if not flat or not is_worth_sharing(model, flat):
        return {}
    cost = f"{len(flat):,} prompts, {sum(len(each.to_write) for each in flat):,} tokens"
    with Progress(f"questions {side}: answers", len(flat), cost=cost) as progress:
        found: Any = iter(written_and_likely(model, flat, ends, progress.advance))
    return {name: [next(found) for _ in of_it] for name, of_it in together.items()}
