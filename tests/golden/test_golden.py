"""Recorded losses of every method. New numbers are accepted by a separate, visible act: `make golden`."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from afterword.methods import METHODS
from afterword.models import frozen_copy
from afterword.training import AdaptationTrainer, training_arguments

pytestmark = pytest.mark.usefixtures("scripted")

RECORDED = Path(__file__).with_name("losses.json")
STEPS = 8


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_those_in_the_repository(
    name: str, build_model: Any, perturb: Any, documents: Any, mixture_of: Any, tokenizer: Any, tmp_path: Path
) -> None:
    data = {"train_dataset": documents, "mixture": mixture_of(METHODS[name]), "processing_class": tokenizer}
    # A student that writes anew does so twice.
    method = METHODS[name].configured(**({"refresh_steps": 3} if METHODS[name].view.rewriting else {}))
    losses = _losses(method, build_model("llama"), perturb, data, tmp_path)
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if os.environ.get("AFTERWORD_RECORD_GOLDEN"):
        RECORDED.write_text(json.dumps({**recorded, name: losses}, indent=1, sort_keys=True) + "\n")
        pytest.skip("recorded")
    assert name in recorded, "a new method: record its losses with `make golden`"
    # Float32 on the CPU moves in the 6th digit between builds of torch; more than that is us.
    assert losses == pytest.approx(recorded[name], rel=1e-4)


def _losses(method: Any, reference: Any, perturb: Any, data: Any, folder: Path) -> list[float]:
    """Losses of eight steps of two documents, from a student that starts away from its teacher."""
    student = perturb(copy.deepcopy(reference))
    arguments = training_arguments(method, output_dir=str(folder), learning_rate=1e-3, max_steps=STEPS, seed=5)
    trainer = AdaptationTrainer(
        student, arguments, **data, method=method, teacher=frozen_copy(reference), documents_per_step=2
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]
