"""What is read once for several prompts gives what each prompt gives when it is read whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from asked_models import BEHIND, CHAT_TEMPLATE, QUESTIONS, asked_models

from afterword.evaluation import losses, questions, read_once
from afterword.evaluation.measure import Models


@pytest.mark.parametrize("chat_template", [None, CHAT_TEMPLATE])
@pytest.mark.parametrize("batch_tokens", [300, 20480])
def test_answers_and_likelihoods_are_those_of_prompts_that_are_read_whole(
    chat_template: str | None, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
):
    models, begun = asked_models(chat_template), list[int]()
    reader = read_once.read_prompts

    def counted(model: Any, prompts: Any) -> Any:
        begun.append(len(prompts))
        return reader(model, prompts)

    monkeypatch.setattr(read_once, "read_prompts", counted)
    monkeypatch.setattr(read_once, "BATCH_TOKENS", batch_tokens)
    shared = questions.answers_to(models, QUESTIONS, "open_book", BEHIND, instruction="Briefly.")
    # All in one batch of each model, or in several.
    assert begun == [3, 3] if batch_tokens == 20480 else len(begun) > 4
    begun.clear()
    alone = questions.answers_to(models, QUESTIONS, "open_book", BEHIND, instruction="Briefly.", alone=True)
    assert not begun
    assert shared.asked == alone.asked
    for side in ("before", "after"):
        for one, other in zip(shared.sides[side], alone.sides[side], strict=True):
            assert one.text == other.text
            # Log-probabilities are float32, whatever the model is in.
            assert one.likelihoods.logprobs_nats == pytest.approx(other.likelihoods.logprobs_nats, rel=1e-5)
            assert one.likelihoods.tokens.tolist() == other.likelihoods.tokens.tolist()
    # What writing alone took is not known of what was read for both.
    assert set(shared.seconds.values()) == {None}
    assert None not in alone.seconds.values()


def test_short_prompts_and_models_that_cannot_go_on_are_read_whole(monkeypatch: pytest.MonkeyPatch):
    models = asked_models()
    closed = [questions.in_tokens(models.tokenizer, asked) for asked in _asked(models, [""] * len(QUESTIONS))]
    opened = [questions.in_tokens(models.tokenizer, asked) for asked in _asked(models, BEHIND)]
    assert not read_once.is_worth_sharing(models.reference, closed)
    assert read_once.is_worth_sharing(models.reference, opened)
    monkeypatch.setattr(read_once, "continues_cleanly", lambda _: False)
    assert not read_once.is_worth_sharing(models.reference, opened)


def _asked(models: Models, texts: list[str]) -> Any:
    return questions.answers_to(models, QUESTIONS, "open_book", texts, alone=True).asked


@pytest.mark.parametrize("both", [True, False])
def test_texts_that_begin_alike_have_the_losses_of_each_alone(both: bool, monkeypatch: pytest.MonkeyPatch):
    models, rng = asked_models(), np.random.default_rng(0)
    models = models if both else Models(models.reference, None, models.tokenizer, models.special, 512)
    beginning = rng.integers(2, 250, 20).tolist()
    texts = [([*beginning, *rng.integers(2, 250, n).tolist()], 1) for n in (1, 9, 30, 31, 4, 90)]
    shared = losses._sums_of_texts(models, texts)
    monkeypatch.setattr(losses, "_LEAST_SHARED", 1000)
    alone = losses._sums_of_texts(models, texts)
    assert (
        shared.keys() == alone.keys() == ({"positions", "nll_before"} | ({"nll_after", "kl_after"} if both else set()))
    )
    assert shared["positions"].tolist() == [len(ids) - 1 for ids, _ in texts]
    for name, sums in alone.items():
        assert shared[name] == pytest.approx(sums, rel=1e-5), name


@pytest.mark.parametrize("first", [1, 20, 25])
def test_what_texts_begin_with_is_scored_from_the_first_that_is_asked_for(first: int):
    models, rng = asked_models(), np.random.default_rng(1)
    beginning = rng.integers(2, 250, 20).tolist()
    texts = [([*beginning, *rng.integers(2, 250, n).tolist()], first) for n in (7, 12, 9)]
    sums = losses._sums_of_texts(models, texts)
    for i, (ids, _) in enumerate(texts):
        with torch.no_grad():
            logprobs = models.reference(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        expected = -logprobs[range(len(ids) - 1), ids[1:]][first - 1 :].sum()
        assert sums["nll_before"][i] == pytest.approx(float(expected), rel=1e-5)


def test_a_text_alone_and_texts_that_differ_share_nothing():
    assert losses._shared_tokens([np.arange(9)]) == 0
    assert losses._shared_tokens([np.arange(9), np.arange(1, 9)]) == 0
    assert losses._shared_tokens([np.arange(9), np.arange(9), np.arange(5)]) == 4, "a token of each is its own"
    assert losses._shared_tokens([np.array([1, 2, 3, 4]), np.array([1, 2, 9, 4])]) == 2
