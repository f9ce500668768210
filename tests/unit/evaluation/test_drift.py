"""Drift and bits per byte, against dense logits in float64; every token of a long text is scored once."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from afterword.data import special_tokens
from afterword.evaluation.losses import drawn_windows, drift
from afterword.evaluation.measure import Models
from afterword.evaluation.measures import MEASURES
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Document

TEXTS = ("Mara Lind was born in Oslo.", "Größe: 5 €, naïve café.", "She moved to Bergen. There she founded a bakery.")


def _models(tokenizer: Any, reference: Any, adapted: Any | None, max_length: int = 256) -> Models:
    special = special_tokens(tokenizer, "auto", "document")
    return Models(reference.eval(), adapted and adapted.eval(), tokenizer, special, max_length)


@torch.no_grad()
def _logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    return copy.deepcopy(model).double()(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)


def _scores(models: Models) -> dict[str, Any]:
    texts = [(models.tokenizer(text).input_ids, 1) for text in TEXTS]
    return {score.metric: score for score in MEASURES["drift/general"].scores(drift(models, texts, {}))}


def test_kl_and_bits_per_byte_are_those_of_dense_logits(tokenizer: Any, build_model: Any, perturb: Any):
    models = _models(tokenizer, build_model(), perturb(build_model()))
    kl, nll, tokens = 0.0, [0.0, 0.0], 0
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        before, after = _logprobs(models.reference, ids), _logprobs(models.adapted, ids)
        kl += float((before.exp() * (before - after)).sum())
        for i, logprobs in enumerate((before, after)):
            nll[i] -= float(logprobs.gather(1, torch.tensor(ids[1:])[:, None]).sum())
        tokens += len(ids) - 1
    utf8_bytes = sum(len(text.encode()) for text in TEXTS)
    scores = _scores(models)
    assert kl > 0.1
    assert scores["kl_nats"].after.value == pytest.approx(kl / tokens, rel=1e-4)
    bits = scores["bits_per_byte"]
    assert bits.before.value == pytest.approx(nll[0] / utf8_bytes / math.log(2), rel=1e-5)
    assert bits.after.value == pytest.approx(nll[1] / utf8_bytes / math.log(2), rel=1e-5)
    assert bits.change.value == pytest.approx(bits.after.value - bits.before.value)
    assert bits.n == len(TEXTS)


def test_equal_models_have_not_drifted(tokenizer: Any, build_model: Any):
    scores = _scores(_models(tokenizer, build_model(), build_model()))
    assert scores["kl_nats"].after.value == pytest.approx(0.0, abs=1e-9)
    assert scores["bits_per_byte"].change.value == 0.0


def test_a_model_alone_has_bits_per_byte_only(tokenizer: Any, build_model: Any):
    scores = _scores(_models(tokenizer, build_model(), None))
    assert list(scores) == ["bits_per_byte"]
    assert scores["bits_per_byte"].after is None


def test_windows_of_a_long_document_score_every_token_once(tokenizer: Any, build_model: Any):
    models = _models(tokenizer, build_model(), None, max_length=32)
    text = " ".join(TEXTS * 3)
    windows = drawn_windows(models, [Document("long", text)], EvaluateSettings())
    assert len(windows) > 3
    texts = [([0, *w.token_ids], 1 + w.first_new_token) for w in windows]
    scored = np.concatenate([ids[first:] for ids, first in texts])
    assert scored.tolist() == tokenizer(text, add_special_tokens=False).input_ids
    assert max(len(ids) for ids, _ in texts) <= 32
