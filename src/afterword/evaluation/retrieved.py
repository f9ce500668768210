"""Questions and suites asked with what retrieval found before them, of the base model and of the adapted one.

The one rule: what the search missed and what the reader missed are told apart. Whether a document was found is of the
search alone; what is said where it was found is of the reader.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from afterword.evaluation.measure import VERSIONS, Inputs, Measured, Models, Values
from afterword.evaluation.question_file import Question
from afterword.evaluation.questions import Answers, answers_to, costs_of, rows_of, units_of, values_of
from afterword.evaluation.retrieval import BM25, Excerpt, Index, before_question, index_of
from afterword.evaluation.right_answers import says
from afterword.evaluation.suite_answers import answer_suite
from afterword.evaluation.suites import Item
from afterword.types import Estimate, Score

_READ = {"said_frac": "said", "choice_correct_frac": "choice_correct"}
"""What is told apart by whether the document was found: the beginning of the metric's name."""


def retrieved_questions(models: Models, inputs: Inputs) -> Measured:
    """The questions behind the excerpts that each finds; one that finds nothing is asked alone.

    A prompt that does not fit is left out and counted, as everywhere: it is not asked with fewer excerpts.
    """
    index = index_of(models, inputs)
    found, seconds = _searched(index, [question.question for question in inputs.questions], inputs)
    texts, instruction = [before_question(each) for each in found], inputs.settings.question_instruction
    answers = answers_to(models, inputs.questions, "retrieved", texts, instruction=instruction, alone=True)
    known = {excerpt.document for excerpt in index.excerpts}
    excerpts = [found[each.place] for each in answers.asked]
    hits = [_hit(each.question, own, known) for each, own in zip(answers.asked, excerpts, strict=True)]
    taken = costs_of(models, answers, search_seconds=seconds)
    values = [*values_of(answers), *_found_values(answers, excerpts, hits), *_by_hit(answers, hits), *taken.values]
    rows = [
        row | {"document_found": hit, "excerpts": [asdict(excerpt) for excerpt in own]}
        for row, hit, own in zip(rows_of(answers), hits, excerpts, strict=True)
    ]
    scores = [*taken.scores, _index_score("questions/retrieved", index)]
    return Measured(values, {**answers.details, **_how(index, inputs)}, rows, scores=scores)


def retrieved_suite(models: Models, inputs: Inputs) -> Measured:
    """The suite's items behind the excerpts that their prompts find, those of retention too.

    Scores are of `split/part_retrieved/skill`, so that no one takes them for what the model knows by itself.
    """
    assert inputs.suite, "what it needs"
    index, settings, items = index_of(models, inputs), inputs.settings, inputs.suite.items
    found, seconds = _searched(index, [item.prompt for item in items], inputs)
    by_id = dict(zip([item.id for item in items], found, strict=True))
    answered = answer_suite(
        models,
        inputs.suite,
        answer_tokens=settings.answer_tokens,
        cache=settings.suite_cache,
        texts={name: before_question(each) for name, each in by_id.items()},
        with_costs=True,
    )
    rows = [
        {**row, "setting": "suite_retrieved", "excerpts": [asdict(each) for each in by_id[row["id"]]]}
        for row in answered.answers
    ]
    values = [replace(each, task=_retrieved_task(each.task)) for each in answered.values]
    scores = [_with_search(score, seconds / len(items)) for score in answered.scores]
    return Measured(
        [*values, *_answers_found(items, answered.answers, by_id)],
        {**answered.details, **_how(index, inputs)},
        rows,
        scores=[*scores, _index_score("suite_retrieved", index)],
    )


def _retrieved_task(task: str) -> str:
    """
    >>> _retrieved_task("test/learning/direct"), _retrieved_task("test/learning")
    ('test/learning_retrieved/direct', 'test/learning_retrieved')
    """
    split, part, *skill = task.split("/")
    return "/".join([split, f"{part}_retrieved", *skill])


def _with_search(score: Score, seconds: float) -> Score:
    """Seconds of an answer, with those that searching for one question takes."""
    sides = {side: getattr(score, side) for side in ("before", "after")}
    more = {side: Estimate(own.value + seconds, None) for side, own in sides.items() if own}
    return replace(score, task="suite_retrieved", **more)


def _answers_found(
    items: Sequence[Item], rows: Sequence[Mapping[str, Any]], by_id: Mapping[str, Sequence[Excerpt]]
) -> Iterator[Values]:
    """By split: of how many items to be learned that were asked the excerpts say the answer."""
    asked = {row["id"] for row in rows}
    learning = [item for item in items if item.part == "learning" and item.id in asked]
    for split in dict.fromkeys(item.split for item in learning):
        here = [item for item in learning if item.split == split]
        said, units = (
            [float(_says_any(by_id[item.id], [item.answer])) for item in here],
            [it.unit or it.id for it in here],
        )
        yield Values(metric="answer_found_frac", task=f"{split}/learning_retrieved", before=said, units=units)


def _searched(index: Index, questions: Sequence[str], inputs: Inputs) -> tuple[list[tuple[Excerpt, ...]], float]:
    """What each question finds, and the seconds that all of the searching took."""
    count, started = inputs.settings.retrieve, time.perf_counter()
    assert count, "what it needs"
    return [index.find(question, count) for question in questions], time.perf_counter() - started


def _hit(question: Question, excerpts: Sequence[Excerpt], known: set[str]) -> bool | None:
    """Whether the question's document was found; None where it names none that was searched."""
    if question.document is None or question.document not in known:
        return None
    return any(excerpt.document == question.document for excerpt in excerpts)


def _says_any(excerpts: Sequence[Excerpt], expected: Sequence[str]) -> bool:
    text = before_question(excerpts)
    return any(says(text, value) for value in expected)


def _found_values(
    answers: Answers, excerpts: Sequence[Sequence[Excerpt]], hits: Sequence[bool | None]
) -> Iterator[Values]:
    """Of the search: on one side alone, as no model has a part in it."""
    named = [i for i, hit in enumerate(hits) if hit is not None]
    if named:
        units = units_of([answers.asked[i] for i in named])
        yield Values(metric="document_found_frac", before=[float(bool(hits[i])) for i in named], units=units)
    pairs = zip(answers.asked, excerpts, strict=True)
    if said := [float(_says_any(own, each.question.expected)) for each, own in pairs]:
        yield Values(metric="answer_found_frac", before=said, units=units_of(answers.asked))


def _by_hit(answers: Answers, hits: Sequence[bool | None]) -> Iterator[Values]:
    """What was read right where the document was found, and where it was missed."""
    for word, hit in (("found", True), ("missed", False)):
        rows = [i for i, each in enumerate(hits) if each is hit]
        sides = {side: [said[i] for i in rows] for side, said in answers.sides.items()}
        own = replace(answers, asked=[answers.asked[i] for i in rows], sides=sides)
        for values in values_of(own) if rows else ():
            if values.metric in _READ:
                yield replace(values, metric=f"{_READ[values.metric]}_where_{word}_frac")


def _index_score(task: str, index: Index) -> Score:
    took = Estimate(index.seconds, None)
    return Score(
        task=task,
        metric="index_seconds",
        version=VERSIONS["retrieval"],
        n=len(index.excerpts),
        before=took,
        better="lower",
    )


def _how(index: Index, inputs: Inputs) -> dict[str, Any]:
    settings = inputs.settings
    searched = {"excerpts": len(index.excerpts), "documents": len({each.document for each in index.excerpts})}
    return {"retrieve": settings.retrieve, "excerpt_tokens": settings.excerpt_tokens, "bm25": BM25, **searched}
