"""What is written for several measures at once is what each would have written alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from asked_models import CHAT_TEMPLATE, DOCUMENTS, QUESTIONS, asked_models

from afterword.evaluation import losses, questions, written_ahead
from afterword.evaluation.measure import Ahead, Inputs, Models
from afterword.evaluation.question_file import Question
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Document

ALL = ("questions/closed_book", "questions/open_book", "drift/own_samples")


def _inputs(asked: Any = QUESTIONS, **how: Any) -> Inputs:
    settings = read_settings({"samples": 4, "sample_tokens": 12, "answered_samples": 3, **how}, EvaluateSettings)
    documents = [Document(id=name, text=text) for name, text in DOCUMENTS.items()]
    return Inputs("m", settings, {"documents": documents}, asked)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AFTERWORD_CACHE", "off")


def _ahead(models: Models, inputs: Inputs, measures: Any = ALL) -> Inputs:
    return replace(inputs, ahead=written_ahead.written_ahead(models, inputs, measures))


@pytest.mark.parametrize("chat_template", [None, CHAT_TEMPLATE])
def test_every_measure_finds_what_it_would_have_written_alone(chat_template: str | None, monkeypatch: Any):
    models = asked_models(chat_template)
    # One question without a document to it: it is asked from memory alone.
    inputs = _inputs([*QUESTIONS, Question("Which year?", ("1962",), "nowhere")])
    ahead = _ahead(models, inputs)
    alone = [measure(models, inputs) for measure in (questions.closed_book, questions.open_book)]
    samples = losses.drift_on_own_samples(models, inputs)
    monkeypatch.setattr(questions, "_answers", None)
    monkeypatch.setattr(losses, "own_samples_of", None)
    for own, measure in zip(alone, (questions.closed_book, questions.open_book), strict=True):
        found = measure(models, ahead)
        assert found.answers == own.answers
        assert [each.metric for each in found.values] == [each.metric for each in own.values]
        assert [list(each.after or ()) for each in found.values] == [list(each.after or ()) for each in own.values]
        assert found.details == own.details
    if chat_template:
        # Answers end where the model ends its turn, as those to the samples do.
        monkeypatch.setattr(losses, "answered_prompts", None)
    assert bool(ahead.ahead.replies) == bool(chat_template)
    assert losses.drift_on_own_samples(models, ahead).samples == samples.samples


def test_one_measure_alone_writes_for_itself():
    models = asked_models()
    for measures in (ALL[:1], ALL[2:], (), ("questions/closed_book", "drift/own_samples")):
        assert written_ahead.written_ahead(models, _inputs(), measures) == Ahead()
    assert written_ahead.written_ahead(models, _inputs(retrieve=2), ALL) == Ahead(), "what an answer costs is measured"
    nowhere = [Question("Where?", ("here",), "nowhere")]
    assert written_ahead.written_ahead(models, _inputs(nowhere), ALL) == Ahead()


def test_a_model_alone_answers_and_has_no_samples():
    models = asked_models()
    alone = Models(models.adapted, None, models.tokenizer, models.special, 512)
    found = written_ahead.written_ahead(alone, _inputs(), ALL)
    assert set(found.answers) == {"closed_book", "open_book"}
    assert {side for of_it in found.answers.values() for side in of_it} == {"after"}
    assert not found.replies


def test_models_that_cannot_go_on_write_for_each_measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(written_ahead, "is_worth_sharing", lambda *_: False)
    found = written_ahead.written_ahead(asked_models(), _inputs(), ALL)
    assert not found.answers
    assert not found.replies
    assert found.samples is not None, "they are not written twice"


def test_samples_that_would_not_fit_are_answered_as_before():
    models = asked_models(CHAT_TEMPLATE)
    short = Models(models.reference, models.adapted, models.tokenizer, models.special, 230)
    found = written_ahead.written_ahead(short, _inputs(sample_tokens=110, question_instruction=""), ALL)
    longest = max(len(sample.prompt_ids) for sample in found.samples or ())
    assert (longest + 64 <= 230) == bool(found.replies)
