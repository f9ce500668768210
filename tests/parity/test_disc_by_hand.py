"""DiSC against itself written out naively in float64 (see conftest): one forward a target, no packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from afterword.methods import get_method

EVERY = {"strategy": "all"}


@pytest.mark.parametrize(("join", "bos"), [("document", [0]), ("authors", [])])
@pytest.mark.parametrize("temperature", [2.0, 1.0])
def test_the_gradient_is_that_of_the_loop_written_out(
    pair: Any,
    documents: Any,
    naive_disc_loss: Any,
    step_gradient: Any,
    assert_close: Any,
    join: str,
    bos: Any,
    temperature: float,
) -> None:
    student, reference = pair()
    method = get_method("disc").configured(**EVERY, join=join, temperature=temperature)
    ours = step_gradient(student, reference, documents, method)
    student.double()
    loss = naive_disc_loss(student, reference.double(), documents, bos=bos, join=join, tau=temperature)
    assert loss > 0.05, "student and teacher must differ for the comparison to mean something"
    loss.backward()
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    assert_close(ours, expected, 1e-5)


def test_one_teacher_pass_serves_all_targets(pair: Any, documents: Any, tokenizer: Any) -> None:
    """The states of one forward over the document are those of a forward per target."""
    from afterword.data import WindowSettings, read_document, special_tokens
    from afterword.data.batching import build_batch
    from afterword.models import trained_states
    from afterword.types import Document

    _, reference = pair()
    view = get_method("disc").configured(**EVERY).view
    special = special_tokens(tokenizer, "auto", "document")
    (window,) = read_document(
        Document("d", documents[4]["text"]), 0, tokenizer, special, WindowSettings(max_length=256)
    ).windows
    example = view.build(window, special, np.random.default_rng(0))
    batch = build_batch([example])
    assert batch.teacher
    with torch.no_grad():
        together = trained_states(reference, *batch.teacher)
        row = 0
        for segment in example.segments:
            end = int(segment.teacher_positions[-1]) + 2
            alone = reference.base_model(torch.tensor(example.teacher_ids[None, :end])).last_hidden_state[0]
            for position in segment.teacher_positions:
                torch.testing.assert_close(together[row], alone[position], rtol=1e-4, atol=1e-5)
                row += 1
    assert row == len(together) > 20
