"""How a step is cut changes no gradient: micro-batches, accumulation, padding, packing. For every method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from afterword.methods import METHODS, get_method

pytestmark = pytest.mark.usefixtures("scripted")

CUTTINGS = {
    "one document at a time": {"micro_batch_tokens": 16},
    "small micro-batches": {"micro_batch_tokens": 96},
    "accumulation 2": {"accumulation": 2},
    "accumulation 3, uneven": {"accumulation": 3, "micro_batch_tokens": 80},
    "a part for each document": {"accumulation": 5},
    "padded": {"layout": "padded"},
    "padded, small": {"layout": "padded", "micro_batch_tokens": 128},
}


AVERAGINGS = ("document", "token")
# Weights and cuts do not know each other: of a method every cut once, with the two averagings in turn.
CUT = [(name, AVERAGINGS[(i + j) % 2], cutting) for i, name in enumerate(METHODS) for j, cutting in enumerate(CUTTINGS)]


@pytest.fixture(scope="module")
def models(pair: Any) -> tuple[Any, Any]:
    """Student and reference: a gradient leaves both as they are."""
    return pair()


@pytest.fixture(scope="module")
def whole() -> dict[tuple[str, str], Any]:
    """The gradient of the step that is not cut, by method and averaging."""
    return {}


@pytest.mark.parametrize(("name", "averaging", "cutting"), CUT)
def test_gradients_do_not_depend_on_how_the_step_is_cut(
    name: str,
    averaging: str,
    cutting: str,
    whole: dict[tuple[str, str], Any],
    models: tuple[Any, Any],
    documents: Any,
    step_gradient: Any,
    assert_close: Any,
) -> None:
    method = METHODS[name].configured(averaging=averaging)
    # No two of them have the same number of sentences.
    given = (*models, documents[:5], method)
    if (name, averaging) not in whole:
        whole[name, averaging] = step_gradient(*given)
    cut = step_gradient(*given, **CUTTINGS[cutting])
    assert_close(cut, whole[name, averaging], 1e-5)


@pytest.mark.parametrize("accumulation", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_a_short_last_step_is_cut_the_same(
    name: str, accumulation: int, pair: Any, documents: Any, step_gradient: Any, assert_close: Any
) -> None:
    """Two documents, in a step that is loaded in three parts: one has nothing of its own, and counts for nothing."""
    student, reference = pair()
    # No general text, which would fill the part that is left over.
    method = replace(METHODS[name], replay=None)
    options = {"documents_per_step": 3, "mixture": {}}
    whole = step_gradient(student, reference, documents[3:5], method, **options)
    cut = step_gradient(student, reference, documents[3:5], method, **options, accumulation=accumulation)
    assert_close(cut, whole, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_windows_of_long_documents_are_cut_the_same(
    name: str, pair: Any, documents: Any, step_gradient: Any, assert_close: Any
) -> None:
    if METHODS[name].view.reads_passages:
        pytest.skip("a passage is not cut: it is left out where it does not fit")
    student, reference = pair()
    long = [{"id": "long", "text": " ".join(row["text"] for row in documents[:5])}, *documents[:3]]
    options = {"max_length": 96, "documents_per_step": 30}
    whole = step_gradient(student, reference, long, METHODS[name], **options)
    cut = step_gradient(student, reference, long, METHODS[name], **options, micro_batch_tokens=96)
    assert_close(cut, whole, 1e-5)


def test_fine_tuning_is_the_plain_formula(
    pair: Any, documents: Any, tokenizer: Any, step_gradient: Any, assert_close: Any
) -> None:
    """Σ over documents of the mean −log p of every token after BOS, EOS included, over the number of documents."""
    student, _ = pair()
    ours = step_gradient(student, None, documents, get_method("finetune"))
    student.double()
    losses = []
    for row in documents:
        ids = torch.tensor([[0, *tokenizer(row["text"], add_special_tokens=False).input_ids, 1]])
        losses.append(torch.nn.functional.cross_entropy(student(ids).logits[0, :-1], ids[0, 1:]))
    torch.stack(losses).mean().backward()
    assert_close(ours, {n: p.grad for n, p in student.named_parameters() if p.grad is not None}, 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_gradient_checkpointing_changes_no_gradient(
    name: str, pair: Any, documents: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair()
    plain = step_gradient(student, reference, documents[:5], METHODS[name])
    student.gradient_checkpointing_enable()
    assert_close(step_gradient(student, reference, documents[:5], METHODS[name]), plain, 1e-5)


HEADS = {
    "tied": ("llama", {"tie_word_embeddings": True}),
    "scale": ("cohere", {}),
    "divisor": ("granite", {}),
    "bias": ("phi", {}),
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_other_kinds_give_the_gradient_of_the_models_own_logits(
    head: str, pair: Any, documents: Any, naive_disc_loss: Any, step_gradient: Any, assert_close: Any
) -> None:
    kind, config = HEADS[head]
    student, reference = pair(kind, **config)
    ours = step_gradient(student, reference, documents[:3], get_method("disc").configured(strategy="all"))
    naive_disc_loss(student.double(), reference.double(), documents[:3]).backward()
    assert_close(ours, {n: p.grad for n, p in student.named_parameters() if p.grad is not None}, 2e-5)
