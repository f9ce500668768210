"""Passages through the real trainer against a naive float64 loop: one document, one passage, one token at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from afterword.data import Prompted
from afterword.methods import Method
from afterword.objectives import Distillation, Prediction, forward_kl

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
