"""Scores against a loop over dense logits in float64, and both ways to lay samples out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from afterword.alignment import sample_scores as scoring
from afterword.alignment.sample_scores import Scores, score_samples
from afterword.alignment.samples import Sample, usable_samples
from afterword.types import Document


def samples_of(tokenizer: Any, dialogues: list[Any], kind: Any = "instructions") -> list[Sample]:
    documents = [Document(f"d{i}", "", source="s", dialogue=d.to_json()) for i, d in enumerate(dialogues)]
    samples, left_out = usable_samples(documents, kind, tokenizer, "own", max_length=256)
    assert not left_out
    return samples


@torch.no_grad()
def by_hand(model: Any, tokenizer: Any, before: str, response: str) -> float:
    """Mean −log p of the response's tokens, one text at a time, in float64."""
    first = len(tokenizer(before, add_special_tokens=False)["input_ids"])
    ids = torch.tensor(tokenizer(before + response, add_special_tokens=False)["input_ids"])
    logprobs = copy.deepcopy(model).double()(ids[None]).logits[0].log_softmax(-1)
    losses = [-float(logprobs[position - 1, ids[position]]) for position in range(first, len(ids))]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("packs", [True, False])
def test_both_losses_are_those_of_a_loop_over_dense_logits(
    chat_tokenizer: Any, build_model: Any, pairs: list[Any], packs: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "packs_cleanly", lambda model: packs)
    model = build_model().eval()
    # At 100 tokens some micro-batches hold several samples, and none holds all.
    scores = score_samples(model, samples_of(chat_tokenizer, pairs, "preferences"), micro_batch_tokens=100)
    for pair, score in zip(pairs, scores, strict=True):
        plain = "<s>" + "".join(f"{turn['content']}\n\n" for turn in pair.prompt)
        turns = {"user": "Q:{}\n", "assistant": "A:{}</s>"}
        chat = "<s>" + "".join(turns[turn["role"]].format(turn["content"]) for turn in pair.prompt) + "A:"
        expected = by_hand(model, chat_tokenizer, plain, pair.response)
        templated = by_hand(model, chat_tokenizer, chat, pair.response + "</s>")
        assert score.plain_nats == pytest.approx(expected, rel=1e-5)
        assert score.templated_nats == pytest.approx(templated, rel=1e-5)
        assert score.format_score == pytest.approx(templated / expected, rel=1e-5)


def test_the_cut_into_micro_batches_changes_no_score(chat_tokenizer: Any, build_model: Any, instructions: list[Any]):
    model, samples = build_model().eval(), samples_of(chat_tokenizer, instructions)
    alone, together = (score_samples(model, samples, micro_batch_tokens=tokens) for tokens in (16, 4096))
    for one, other in zip(alone, together, strict=True):
        assert one.plain_nats == pytest.approx(other.plain_nats, rel=1e-5)
        assert one.templated_nats == pytest.approx(other.templated_nats, rel=1e-5)


def test_a_response_known_by_heart_has_a_ratio():
    assert Scores(plain_nats=0.0, templated_nats=1e-3).format_score == pytest.approx(1000)
    assert Scores(0.0, 0.0).format_score == 0


def test_dropout_may_not_be_in_the_scores(chat_tokenizer: Any, build_model: Any, instructions: list[Any]):
    with pytest.raises(AssertionError, match="dropout"):
        score_samples(build_model().train(), samples_of(chat_tokenizer, instructions))
