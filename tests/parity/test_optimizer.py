"""The declaration wins over the Trainer: ten steps are ten steps of plain torch.optim.AdamW."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, training_arguments

pytestmark = pytest.mark.usefixtures("scripted")


@pytest.mark.parametrize("name", METHODS)
def test_ten_steps_are_those_of_plain_adamw(
    name: str, pair: Any, documents: Any, mixture_of: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Constant rate, decay on every parameter, no warm-up, no clipping, one document a step."""
    student, _ = pair()
    twin = copy.deepcopy(student)
    # A student that writes anew in between would be another by hand, and SDFT has a schedule of its own.
    method = METHODS[name].configured(**({"refresh_steps": 99} if METHODS[name].view.rewriting else {}))
    plain = {"lr_scheduler_type": "constant", "warmup_steps": 0}

    def build(model: Any) -> AdaptationTrainer:
        arguments = training_arguments(method, output_dir=str(tmp_path), learning_rate=1e-3, seed=3, **plain)
        data = {"train_dataset": documents, "mixture": mixture_of(method), "processing_class": tokenizer}
        return AdaptationTrainer(model, arguments, method=method, **data)

    trained = build(student)
    trained.train()
    assert trained.state.global_step == len(trained.windows) >= 10
    by_hand = build(twin)
    optimizer = torch.optim.AdamW(
        twin.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True
    )
    norms = []
    for batches in by_hand.get_train_dataloader():
        by_hand.training_step(twin, batches, by_hand._get_num_items_in_batch([batches], torch.device("cpu")))
        norms.append(torch.nn.utils.get_total_norm(p.grad for p in twin.parameters()).item())
        optimizer.step()
        optimizer.zero_grad()
    assert max(norms) > 1, "a step whose gradient the Trainer's default would clip"
    for (key, ours), theirs in zip(student.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_no_parameter_is_left_out_of_the_decay(
    name: str, pair: Any, documents: Any, mixture_of: Any, tokenizer: Any, tmp_path: Path
) -> None:
    student, _ = pair("qwen2")
    arguments = training_arguments(METHODS[name], output_dir=str(tmp_path))
    data = {"train_dataset": documents, "mixture": mixture_of(METHODS[name]), "processing_class": tokenizer}
    trainer = AdaptationTrainer(student, arguments, method=METHODS[name], **data)
    groups = trainer.create_optimizer().param_groups
    decayed = sum(p.numel() for group in groups if group["weight_decay"] == 0.01 for p in group["params"])
    assert decayed == sum(p.numel() for p in student.parameters())
