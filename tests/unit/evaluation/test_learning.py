"""a, b, c and the KL, against a loop over dense logits in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from afterword.data import SpecialTokens, WindowSettings, read_document, special_tokens
from afterword.evaluation.losses import VIEW, learned_from
from afterword.evaluation.measure import Measured, Models
from afterword.evaluation.measures import MEASURES
from afterword.types import Document, Window


def _models(tokenizer: Any, reference: Any, adapted: Any | None) -> Models:
    return Models(
        reference.eval(), adapted and adapted.eval(), tokenizer, special_tokens(tokenizer, "auto", "document"), 64
    )


def _windows(models: Models, documents: list[dict[str, str]]) -> list[Window]:
    reading = WindowSettings(max_length=models.max_length)
    texts = [Document(row["id"], row["text"]) for row in documents]
    read = [read_document(text, 0, models.tokenizer, models.special, reading) for text in texts]
    windows = [window for document in read for window in document.windows]
    numbered = [
        Window(i, w.document, 0, w.token_ids, w.sentence_starts, w.first_new_sentence, w.is_document_end, w.anchor_ids)
        for i, w in enumerate(windows)
    ]
    return [window for window in numbered if VIEW.skip_reason(window) is None]


@torch.no_grad()
def _logprobs(model: Any, ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    return model(torch.tensor(ids)[None]).logits[0, positions].log_softmax(-1)


def _by_hand(models: Models, windows: list[Window], seed: int) -> dict[str, float]:
    reference, dense = (copy.deepcopy(model).double() for model in (models.reference, models.adapted))
    per_document: dict[str, list[list[float]]] = {}
    for window in windows:
        example = VIEW.build(window, models.special, np.random.default_rng((seed, window.index)))
        for s in example.segments:
            with_context = _logprobs(reference, example.teacher_ids, s.teacher_positions)
            alone = _logprobs(reference, s.student_ids, s.student_positions)
            adapted = _logprobs(dense, s.student_ids, s.student_positions)
            for i, target in enumerate(s.target_ids):
                kl = [float((with_context[i].exp() * (with_context[i] - q[i])).sum()) for q in (alone, adapted)]
                row = [-float(p[i, target]) for p in (adapted, alone, with_context)]
                per_document.setdefault(window.document, []).append(row + kl)
    means = np.mean([np.mean(rows, axis=0) for rows in per_document.values()], axis=0)
    return dict(zip(("a", "b", "c", "kl_before", "kl_after"), means, strict=True))


def _by_metric(found: Measured) -> dict[str, Any]:
    return {score.metric: score for score in MEASURES["learning/trained"].scores(found)}


def test_a_b_c_and_kl_are_those_of_a_loop_over_dense_logits(
    tokenizer: Any, build_model: Any, perturb: Any, documents: list[dict[str, str]]
):
    # At 64 tokens most documents are read in several windows.
    models = _models(tokenizer, build_model(), perturb(build_model()))
    windows = _windows(models, documents)
    assert len(windows) > len({window.document for window in windows})
    scores, by_hand = (_by_metric(learned_from(models, windows, seed=3)), _by_hand(models, windows, 3))
    nll, kl = scores["target_nll_nats"], scores["kl_from_context_nats"]
    assert nll.after.value == pytest.approx(by_hand["a"], rel=1e-5)
    assert nll.before.value == pytest.approx(by_hand["b"], rel=1e-5)
    assert scores["target_nll_with_context_nats"].before.value == pytest.approx(by_hand["c"], rel=1e-5)
    assert kl.before.value == pytest.approx(by_hand["kl_before"], rel=1e-4)
    assert kl.after.value == pytest.approx(by_hand["kl_after"], rel=1e-4)
    assert nll.n == len({window.document for window in windows})
    assert nll.change.value == pytest.approx(by_hand["a"] - by_hand["b"], rel=1e-4)
    assert nll.change.interval_95[0] < nll.change.value < nll.change.interval_95[1]


def test_nothing_changes_where_the_model_did_not(tokenizer: Any, build_model: Any, documents: list[dict[str, str]]):
    models = _models(tokenizer, build_model(), build_model())
    scores = _by_metric(learned_from(models, _windows(models, documents)))
    for name in ("target_nll_nats", "kl_from_context_nats"):
        assert scores[name].before == scores[name].after
        assert (scores[name].change.value, scores[name].change.interval_95) == (0.0, None)
    assert scores["kl_from_context_relative_frac"].after.value == 1.0


def test_a_model_alone_has_b_and_c_only(tokenizer: Any, build_model: Any, documents: list[dict[str, str]]):
    models = _models(tokenizer, build_model(), None)
    scores = _by_metric(learned_from(models, _windows(models, documents)))
    assert list(scores) == ["target_nll_nats", "target_nll_with_context_nats", "kl_from_context_nats"]
    assert scores["target_nll_nats"].after is scores["target_nll_nats"].change is None


@pytest.mark.parametrize(("gains", "printed"), [((0.3, 0.5), True), ((0.15, 0.2), False), ((-2.0, 5.0), False)])
def test_the_share_is_given_only_where_context_helps_for_sure(
    monkeypatch: pytest.MonkeyPatch, gains: tuple[float, float], printed: bool
):
    rng = np.random.default_rng(0)
    gain, b = rng.uniform(*gains, 8), rng.uniform(3, 4, 8)
    if gains[0] < 0:
        gain = np.array([-3.0, 3.0, -3.0, 5.0, -2.0, 4.0, -1.0, 1.0])  # 0.5 on average, and the interval holds 0
    sums = {"positions": np.ones(8), "nll_before": b, "nll_with_context": b - gain, "nll_after": b - gain / 2}
    sums |= {"kl_before": np.ones(8), "kl_after": np.ones(8) / 2}
    monkeypatch.setattr("afterword.evaluation.losses.losses_by_unit", lambda *_: sums)
    ids, starts = np.arange(9), np.array([0, 3, 6])
    windows = [Window(i, f"d{i}", 0, ids, starts, 0, True, np.zeros(0, np.int64)) for i in range(8)]
    models = Models(None, object(), None, SpecialTokens((), None), 64)
    scores = _by_metric(learned_from(models, windows))
    assert ("share_of_context_gain_frac" in scores) is printed
    if printed:
        assert scores["share_of_context_gain_frac"].after.value == pytest.approx(0.5)
    assert scores["kl_from_context_relative_frac"].after.value == pytest.approx(0.5)
