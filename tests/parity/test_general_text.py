"""Every method that reads whole documents or general text, against loops over tokens in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from afterword.data.mixture import SourceShare
from afterword.methods import get_method
from afterword.models import frozen_copy
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.sources import MixtureSource

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


def forward_at_two(student: torch.Tensor, teacher: torch.Tensor, gold: int) -> torch.Tensor:
    return 4 * kl(torch.softmax(teacher / 2, -1), torch.softmax(student / 2, -1))


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


def once(rows: Any) -> dict[str, MixtureSource]:
    return {"general": MixtureSource(documents=rows, share=SourceShare())}


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


@pytest.mark.parametrize(
    ("replay", "loss"),
    [({}, swapped), ({"replay": "kl"}, forward), ({"replay": "kl", "replay_temperature": 2.0}, forward_at_two)],
)
def test_disc_and_mixcpt_in_one_run_are_each_divided_by_its_own_count(
    replay: dict[str, Any],
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
    # Another replay, and its settings, are of general text; the documents keep the swap at its own.
    method = get_method("disc_mixcpt").configured(**replay, strategy="all", **factors)
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


@pytest.mark.parametrize("name", ["finetune", "mol", "mixcpt"])
def test_sources_have_objectives_and_counts_of_their_own(
    name: str, pair: Any, documents: Any, general_rows: Any, tokens_of: Any, step_gradient: Any, assert_close: Any
) -> None:
    """KL on one source, prediction on another with a factor; a third, where there is one, is as the method has it."""
    student, reference = pair()
    rows = {"instructions": general_rows[:2], "chats": general_rows[2:5]}
    chosen = {"instructions": ("kl", 1.0), "chats": ("prediction", 0.3)}
    method = get_method(name).with_sources(chosen)
    if method.takes_general_text:
        rows["plain"] = general_rows[5:]
    mixture = {source: MixtureSource(documents=text, share=SourceShare()) for source, text in rows.items()}
    ours = step_gradient(student, reference, documents, method, mixture=mixture)
    cut = step_gradient(student, reference, documents, method, mixture=mixture, accumulation=2, micro_batch_tokens=90)
    assert_close(cut, ours, 1e-5)
    student.double(), reference.double()
    texts = {source: tokens_of(student, reference, text) for source, text in rows.items()}
    own = tokens_of(student, reference, documents)
    expected = {
        "finetune": lambda: over_documents(own, prediction),
        "mol": lambda: over_tokens(own, prediction) + over_tokens(texts["plain"], toward_itself),
        "mixcpt": lambda: over_tokens(own + texts["plain"], swapped),
    }[name]() + over_tokens(texts["instructions"], forward) + 0.3 * over_tokens(texts["chats"], prediction)  # fmt: skip
    assert_close(ours, gradients(student, expected), 2e-5)


@pytest.fixture
def held_out(tokenizer: Any, tmp_path: Any) -> Callable[..., dict[str, float]]:
    """What an evaluation says of held-out documents and held-out general text, by name of its source."""

    def evaluated(student: Any, reference: Any, method: Any, documents: Any, general: dict[str, Any]) -> Any:
        sources = {n: MixtureSource(documents=TEXTS, share=SourceShare(), held_out=rows) for n, rows in general.items()}
        trainer = AdaptationTrainer(
            student,
            training_arguments(method, output_dir=str(tmp_path)),
            train_dataset=TEXTS,
            eval_dataset=documents,
            processing_class=tokenizer,
            method=method,
            teacher=frozen_copy(reference),
            mixture=sources,
        )
        return trainer.evaluate()

    return evaluated


TEXTS = [{"text": "Nothing of this is evaluated. It is only trained."}]


@pytest.mark.parametrize("name", ["mol", "mixcpt", "finetune"])
def test_an_evaluation_is_of_every_term_and_tells_every_source(
    name: str, pair: Any, documents: Any, general_rows: Any, tokens_of: Any, held_out: Any
) -> None:
    student, reference = pair()
    rows = {"chats": general_rows[:3]} | ({"plain": general_rows[3:]} if name != "finetune" else {})
    method = get_method(name).with_sources({"chats": ("kl", 0.5)})
    found = held_out(student, reference, method, documents[:4], rows)
    student.double(), reference.double()
    texts = {source: tokens_of(student, reference, text) for source, text in rows.items()}
    own = tokens_of(student, reference, documents[:4])
    expected = {
        "finetune": lambda: over_documents(own, prediction),
        "mol": lambda: over_tokens(own, prediction) + over_tokens(texts["plain"], toward_itself),
        "mixcpt": lambda: over_tokens(own + texts["plain"], swapped),
    }[name]() + 0.5 * over_tokens(texts["chats"], forward)  # fmt: skip
    assert found["eval_loss"] == pytest.approx(expected.item(), rel=1e-4)
    plain = over_documents(own, prediction) if name == "finetune" else over_tokens(own, prediction)
    assert found["eval_nll_nats"] == pytest.approx(plain.item(), rel=1e-4)
    of_chats = over_tokens(texts["chats"], forward).item()
    assert found["eval_source/chats/replay_forward_kl_nats"] == pytest.approx(of_chats, rel=1e-4)
    assert found["eval_source/chats/replay_positions"] == sum(map(len, texts["chats"]))


def test_general_text_is_evaluated_without_documents_too(
    pair: Any, general_rows: Any, tokens_of: Any, held_out: Any
) -> None:
    student, reference = pair()
    found = held_out(student, reference, get_method("mol"), None, {"plain": general_rows})
    student.double(), reference.double()
    expected = over_tokens(tokens_of(student, reference, general_rows), toward_itself).item()
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert "eval_nll_nats" not in found


def test_a_step_without_a_document_has_no_temperature_of_its_own(
    pair: Any, documents: Any, general_rows: Any, tokenizer: Any, tmp_path: Any
) -> None:
    """Steps of so many tokens may lie between two documents, and hold general text alone."""
    student, reference = pair()
    method = get_method("talr").configured(replay="kl")
    rows = [{"text": " ".join(row["text"] for row in documents)[:600]}, {"text": "One. Two."}, {"text": "Three."}]
    trainer = AdaptationTrainer(
        student,
        training_arguments(method, output_dir=str(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
        method=method,
        teacher=frozen_copy(reference),
        mixture={"general": MixtureSource(documents=general_rows, share=SourceShare(tokens=0.6))},
        step_tokens=20,
    )
    assert any(step.min() >= len(trainer.windows) for step in trainer.plan.steps(0))
    trainer.train()
    assert len([row for row in trainer.state.log_history if "loss" in row]) == trainer.plan.steps_per_epoch
