"""Two gloo processes give the gradient of one: 10 documents, and 9 that cannot be shared evenly."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from safetensors.torch import load_file

from afterword.methods import METHODS

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from afterword.batching import Packing
from afterword.methods import METHODS
from afterword.models import freeze
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.mixture import Share
from afterword.training.parts import GeneralText

folder = Path(sys.argv[1])
rows = json.loads((folder / "rows.json").read_text())
for name, count, accumulation in json.loads(sys.argv[2]):
    load = lambda which: AutoModelForCausalLM.from_pretrained(folder / which, dtype=torch.float32)
    method, model = METHODS[name], load("student")
    arguments = training_arguments(
        method, output_dir=str(folder / "out"), seed=3, gradient_accumulation_steps=accumulation, use_cpu=True
    )
    general = GeneralText(documents=json.loads((folder / "general.json").read_text()), share=Share(tokens=0.4))
    trainer = AdaptationTrainer(
        model, arguments, train_dataset=rows[:count], mixture={"general": general} if method.takes_general_text else {},
        processing_class=AutoTokenizer.from_pretrained(folder / "student"), method=method,
        teacher=freeze(load("reference")), documents_per_step=count, packing=Packing(128),
    )
    wrapped, _ = trainer._prepare_for_training(1, trainer.get_train_dataloader(), None)
    parts, total = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), accumulation, trainer.args.device)
    for i, batches in enumerate(parts):
        if i < len(parts) - 1:
            with trainer.accelerator.no_sync(wrapped):
                trainer.training_step(wrapped, batches, total)
        else:
            trainer.training_step(wrapped, batches, total)
    if trainer.is_world_process_zero():
        grads = {n: p.grad.contiguous() for n, p in model.named_parameters()}
        save_file(grads, folder / f"{name}-{count}-{accumulation}-{trainer.args.world_size}.safetensors")
"""
CASES = [(name, count, accumulation) for name in METHODS for count, accumulation in ((10, 1), (9, 1), (9, 2))]


@pytest.fixture(scope="module")
def gradients(
    tmp_path_factory: pytest.TempPathFactory, pair: Any, tokenizer: Any, documents: Any, general_rows: Any
) -> dict[tuple[Any, ...], Any]:
    """Gradients of every case on one process and on two, all from two launches."""
    import json

    folder = tmp_path_factory.mktemp("processes")
    student, reference = pair()
    student.save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "student")
    reference.save_pretrained(folder / "reference")
    (folder / "rows.json").write_text(json.dumps(documents))
    (folder / "general.json").write_text(json.dumps(general_rows))
    (folder / "program.py").write_text(PROGRAM)
    arguments = [str(folder / "program.py"), str(folder), json.dumps(CASES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29517"]
    for command in ([sys.executable, *arguments], [*launch, *arguments]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        (*case, processes): load_file(folder / f"{'-'.join(map(str, case))}-{processes}.safetensors")
        for case in CASES
        for processes in (1, 2)
    }


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_gradient_of_one(case: Any, gradients: Any, assert_close: Any) -> None:
    assert_close(gradients[(*case, 2)], gradients[(*case, 1)], 1e-5)
