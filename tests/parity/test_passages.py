"""Passages through the real trainer against a naive float64 loop: one document, one passage, one token at a time."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from afterword.data import Prompted
from afterword.data.batching import Packing, teacher_views
from afterword.methods import Method
from afterword.models import continues_cleanly, frozen_copy, only_reading, trained_states
from afterword.objectives import Distillation, Prediction, forward_kl
from afterword.training import AdaptationTrainer, training_arguments
from afterword.types import Example, Segment, SharedRows

BOS, EOS = 0, 1
KL = Distillation(forward_kl, temperature=2.0)
CUTTINGS = {
    "small micro-batches": {"micro_batch_tokens": 48},
    "accumulation 3": {"accumulation": 3},
    "padded": {"layout": "padded"},
    "padded, small": {"layout": "padded", "micro_batch_tokens": 64},
}


def method(view: Prompted, objective: Any = None) -> Method:
    return Method(name="own", summary="", paper="", view=view, objective=objective or KL)


def naive_loss(student: Any, teacher: Any, passages: Any, tokenizer: Any, *, chunk: int = 10**9, skip: int = 0) -> Any:
    """Mean over documents of the mean over passages of the mean over chunks of τ² · KL at τ = 2."""
    per_document = []
    for _, of_it in passages:
        per_passage = []
        for passage in of_it:
            parts = (passage.text, passage.student_before, passage.teacher_before)
            text, student_before, teacher_before = (tokenizer(t, add_special_tokens=False).input_ids for t in parts)
            text = [*text, *([EOS] if passage.ended else [])]
            with torch.no_grad():
                z_teacher = teacher(torch.tensor([[BOS, *teacher_before, *text]])).logits[0]
            z_student = student(torch.tensor([[BOS, *student_before, *text]])).logits[0]
            kls = []
            for t in range(skip, len(text)):
                p = torch.softmax(z_teacher[len(teacher_before) + t] / 2, -1)
                s = torch.softmax(z_student[len(student_before) + t] / 2, -1)
                kls.append(4 * (p * (p.log() - s.log())).sum())
            chunks = [torch.stack(kls[i : i + chunk]).mean() for i in range(0, len(kls), chunk)]
            per_passage.append(torch.stack(chunks).mean())
        per_document.append(torch.stack(per_passage).mean())
    return torch.stack(per_document).mean()


def gradients(model: Any) -> dict[str, Any]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, {"chunk_tokens": 4}, {"skip_tokens": 2}])
def test_gradients_are_those_of_the_formula(
    options: Any, pair: Any, passages: Any, tokenizer: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair()
    view = Prompted(bos="always", **options)
    ours = step_gradient(student, reference, [document for document, _ in passages], method(view))
    how = {name.removesuffix("_tokens"): value for name, value in options.items()}
    loss = naive_loss(student.double(), reference.double(), passages, tokenizer, **how)
    assert float(loss.detach()) >= 0.05
    loss.backward()
    assert_close(ours, gradients(student), 1e-5)


@pytest.mark.parametrize("cutting", CUTTINGS)
def test_gradients_do_not_depend_on_how_the_step_is_cut(
    cutting: str, pair: Any, passages: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair()
    documents, drawn = [document for document, _ in passages], method(Prompted(passages=2, chunk_tokens=4))
    whole = step_gradient(student, reference, documents, drawn)
    assert_close(step_gradient(student, reference, documents, drawn, **CUTTINGS[cutting]), whole, 1e-5)


def test_prediction_needs_no_teacher(
    pair: Any, passages: Any, tokenizer: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, _ = pair()
    view = Prompted(bos="always", averaging="token")
    ours = step_gradient(student, None, [document for document, _ in passages], method(view, Prediction()))
    losses = []
    for passage in itertools.chain(*(of_it for _, of_it in passages)):
        before, text = (
            tokenizer(t, add_special_tokens=False).input_ids for t in (passage.student_before, passage.text)
        )
        text = [*text, *([EOS] if passage.ended else [])]
        logits = student.double()(torch.tensor([[BOS, *before, *text]])).logits[0, len(before) : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(text), reduction="none"))
    torch.cat(losses).mean().backward()
    assert_close(ours, gradients(student), 1e-5)


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "granite", "phi"])
def test_what_is_read_once_gives_the_states_of_what_is_read_whole(kind: str, rows_at_once: int, pair: Any) -> None:
    _, model = pair(kind)
    assert continues_cleanly(model)
    rng = np.random.default_rng(0)
    begins, nothing = [rng.integers(5, 250, n) for n in (40, 31)], np.zeros(0, np.int64)
    examples = [
        Example("d", 0, begin, tuple(_asked(rng.integers(5, 250, n), len(begin), nothing) for n in (5, 9, 8, 7)))
        for begin in begins
    ]
    whole = teacher_views(examples, Packing(10_000))
    (shared,) = teacher_views(examples, Packing(10_000, shares_beginnings=True))
    assert isinstance(shared, SharedRows)
    assert shared.tokens < sum(view.tokens for view in whole) / 2
    with only_reading(model.double()):
        ours = trained_states(model, replace(shared, rows_at_once=rows_at_once))
        torch.testing.assert_close(ours, trained_states(model, *whole), rtol=1e-9, atol=1e-9)


def _asked(ids: np.ndarray, before: int, nothing: np.ndarray) -> Segment:
    """A segment of which the teacher reads these ids alone; all its predictions of them are asked for."""
    return Segment(nothing, nothing, np.arange(before - 1, before + len(ids)), nothing, nothing, teacher_ids=ids)


def test_a_step_counts_what_a_teacher_really_reads(pair: Any, passages: Any, tokenizer: Any, tmp_path: Any) -> None:
    _, reference = pair()
    trainer = AdaptationTrainer(
        copy.deepcopy(reference),
        training_arguments(method(Prompted()), output_dir=str(tmp_path)),
        train_dataset=[document for document, _ in passages],
        processing_class=tokenizer,
        method=method(Prompted()),
        teacher=frozen_copy(reference),
        documents_per_step=10,
    )
    assert trainer.packing.shares_beginnings
    (batches,) = trainer.get_train_dataloader()
    read = sum(view.tokens for batch in batches for view in batch.teacher)
    whole = sum(view.tokens for batch in trainer_reads_whole(trainer) for view in batch.teacher)
    assert read < 0.6 * whole


def trainer_reads_whole(trainer: Any) -> Any:
    """The batches of a trainer that shares nothing."""
    trainer.packing = replace(trainer.packing, shares_beginnings=False)
    (batches,) = trainer.get_train_dataloader()
    return batches
