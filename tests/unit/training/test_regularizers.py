"""L2-SP and weight averaging, by hand; both go on where a stopped run left them."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from afterword import METHODS, adapt
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.regularizers import AVERAGE, Staying, WeightAverage, add_pull_to_start, trained_weights

METHOD = METHODS["finetune"]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_pull_is_the_gradient_of_the_penalty(
    accumulation: int, build_model: Any, perturb: Any, documents: Any, tokenizer: Any, tmp_path: Path
) -> None:
    start = build_model("llama")

    def gradient(**staying: Any) -> dict[str, torch.Tensor]:
        model = copy.deepcopy(start)
        arguments = training_arguments(
            METHOD, output_dir=str(tmp_path), gradient_accumulation_steps=accumulation, max_steps=1, seed=1
        )
        trainer = AdaptationTrainer(
            model,
            arguments,
            train_dataset=documents,
            processing_class=tokenizer,
            method=METHOD,
            documents_per_step=4,
            staying=Staying(**staying),
        )
        perturb(model)
        seen: dict[str, torch.Tensor] = {}
        stepping = trainer.create_optimizer()
        stepping.register_step_pre_hook(
            lambda *_: seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        )
        trainer.train()
        return seen

    plain, pulled = gradient(), gradient(pull=0.3)
    moved = perturb(copy.deepcopy(start))
    for (name, before), after in zip(start.named_parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(pulled[name] - plain[name], 0.3 * (after - before), rtol=1e-4, atol=1e-6)


def test_an_average_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(kept=0.75, every=2)

    def step(number: int, weight: float) -> float:
        model.weight.data.fill_(weight)
        average.on_step_end(None, SimpleNamespace(global_step=number), None, model=model)
        return model.weight.item()

    model.weight.data.fill_(1.0)
    average.on_train_begin(None, None, None, model=model)
    assert step(1, 5.0) == 5.0
    assert step(2, 9.0) == 0.75 * 1.0 + 0.25 * 9.0
    assert step(3, 7.0) == 7.0
    assert step(4, 3.0) == 0.75 * 3.0 + 0.25 * 3.0


def test_a_frozen_weight_is_neither_pulled_nor_averaged() -> None:
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert list(trained_weights(model)) == ["weight"]
    model.weight.grad = torch.zeros(1, 2)
    start = {"weight": model.weight.detach() - 1}
    add_pull_to_start(model, start, 0.5)
    assert model.weight.grad.tolist() == [[0.5, 0.5]]


def test_a_checkpoint_between_two_averagings_has_the_average(
    model_folder: Path, documents: Any, tmp_path: Path
) -> None:
    settings = {
        "method": "disc",
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "max_steps": 5,
        "save_steps": 1,
        "ema": 0.9,
        "ema_steps": 2,
        "save_total_limit": 9,
    }
    run = adapt(str(model_folder), documents, output_dir=tmp_path / "run", **settings)
    with_average = {int(f.parent.name.split("-")[1]) for f in run.path.glob(f"checkpoint-*/{AVERAGE}")}
    assert with_average == {1, 3, 5}
