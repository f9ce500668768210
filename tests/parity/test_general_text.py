"""Every method that reads whole documents or general text, against loops over tokens in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from afterword.methods import get_method
from afterword.training.mixture import Share
from afterword.training.parts import GeneralText

Pair = tuple[torch.Tensor, torch.Tensor, int]
"""Student's logits [V], teacher's logits [V], gold token."""


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p.log() - q.log())).sum()


def prediction(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    return -torch.softmax(student, -1)[gold].log()


def swapped(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    """α = 0.5, τ = 1, KL(q ‖ s)."""
    logits, first = teacher.clone(), int(teacher.argmax())
    logits[first], logits[gold] = teacher[gold], teacher[first]
    distilled = kl(torch.softmax(logits, -1), torch.softmax(student, -1))
    return 0.5 * prediction(student, teacher, gold) + 0.5 * distilled


def near(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    return prediction(student, teacher, gold) + 0.1 * kl(torch.softmax(teacher, -1), torch.softmax(student, -1))


def unforgetting(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    distilled = 4 * kl(torch.softmax(teacher / 2, -1), torch.softmax(student / 2, -1))
    return 0.5 * prediction(student, teacher, gold) + 0.5 * distilled


def toward_itself(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    return kl(torch.softmax(student, -1), torch.softmax(teacher, -1))


def forward(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    return kl(torch.softmax(teacher, -1), torch.softmax(student, -1))


@pytest.fixture(scope="module")
def tokens_of(tokenizer: Any) -> Callable[..., list[list[Pair]]]:
    """For every text, what student and teacher say of every token after BOS, EOS included."""

    def pairs(student: Any, teacher: Any, rows: Any) -> list[list[Pair]]:
        texts = []
        for row in rows:
            ids = [0, *tokenizer(row["text"].lstrip(), add_special_tokens=False).input_ids, 1]
            with torch.no_grad():
                taught = teacher(torch.tensor([ids])).logits[0]
            said = student(torch.tensor([ids])).logits[0]
            texts.append([(said[t], taught[t], ids[t + 1]) for t in range(len(ids) - 1)])
        return texts

    return pairs


def over_tokens(texts: list[list[Pair]], loss: Callable[..., torch.Tensor]) -> torch.Tensor:
    return torch.stack([loss(*pair) for text in texts for pair in text]).mean()


def over_documents(texts: list[list[Pair]], loss: Callable[..., torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.stack([loss(*pair) for pair in text]).mean() for text in texts]).mean()


def by_hand(name: str, documents: list[list[Pair]], general: list[list[Pair]]) -> torch.Tensor:
    return {
        "mixcpt": lambda: over_tokens(documents + general, swapped),
        "cpt": lambda: over_tokens(documents + general, prediction),
        "lwf": lambda: over_tokens(documents + general, unforgetting),
        "finetune_kl": lambda: over_documents(documents, near),
        "mol": lambda: over_tokens(documents, prediction) + over_tokens(general, toward_itself),
        "talr": lambda: adaptive(documents),
    }[name]()


def adaptive(texts: list[list[Pair]]) -> torch.Tensor:
    """Weights of the median over documents of their mean losses, without gradient."""
    losses = [torch.stack([prediction(*pair) for pair in text]) for text in texts]
    temperature = sorted(text.mean().item() for text in losses)
    middle = temperature[len(temperature) // 2 - 1 : len(temperature) // 2 + 1]
    tau = sum(middle) / 2 if len(temperature) % 2 == 0 else temperature[len(temperature) // 2]
    weighted = [(loss.detach().neg().exp() ** (1 / tau)).clamp(min=0.01) * loss for text in losses for loss in text]
    return torch.stack(weighted).mean()


def once(rows: Any) -> dict[str, GeneralText]:
    return {"general": GeneralText(documents=rows, share=Share())}


def gradients(student: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    return found


@pytest.mark.parametrize("name", ["mixcpt", "cpt", "lwf", "finetune_kl", "mol", "talr"])
def test_a_method_is_its_formula(
    name: str, pair: Any, documents: Any, general_rows: Any, tokens_of: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair()
    method = get_method(name)
    mixture = once(general_rows) if method.takes_general_text else {}
    ours = step_gradient(student, reference, documents, method, mixture=mixture)
    student.double(), reference.double()
    texts = [tokens_of(student, reference, rows) for rows in (documents, general_rows)]
    assert_close(ours, gradients(student, by_hand(name, *texts)), 2e-5)


@pytest.mark.parametrize(("replay", "loss"), [(None, swapped), ("kl", forward)])
def test_disc_and_mixcpt_in_one_run_are_each_divided_by_its_own_count(
    replay: str | None,
    loss: Any,
    pair: Any,
    documents: Any,
    general_rows: Any,
    tokens_of: Any,
    naive_disc_loss: Any,
    step_gradient: Any,
    assert_close: Any,
) -> None:
    student, reference = pair()
    factors = {"replay_weight": 0.7, "replay_documents": 0.2}
    # Another replay is of general text; the documents keep the swap.
    method = get_method("disc_mixcpt").configured(replay=replay, strategy="all", **factors)
    rows = [row for row in documents if row["text"].count(".") > 1]
    ours = step_gradient(student, reference, rows, method, mixture=once(general_rows))
    student.double(), reference.double()
    general = over_tokens(tokens_of(student, reference, general_rows), loss)
    whole = over_tokens(tokens_of(student, reference, rows), swapped)
    expected = naive_disc_loss(student, reference, rows) + 0.7 * general + 0.2 * whole
    assert_close(ours, gradients(student, expected), 2e-5)


@pytest.mark.parametrize(
    ("replay", "loss"), [("prediction", prediction), ("kl", forward), ("reverse_kl", toward_itself), ("swap", swapped)]
)
def test_any_method_can_replay(
    replay: str,
    loss: Any,
    pair: Any,
    documents: Any,
    general_rows: Any,
    tokens_of: Any,
    step_gradient: Any,
    assert_close: Any,
) -> None:
    student, reference = pair()
    method = get_method("finetune").configured(replay=replay)
    ours = step_gradient(student, reference, documents, method, mixture=once(general_rows))
    student.double(), reference.double()
    own = over_documents(tokens_of(student, reference, documents), prediction)
    expected = own + over_tokens(tokens_of(student, reference, general_rows), loss)
    assert_close(ours, gradients(student, expected), 2e-5)
