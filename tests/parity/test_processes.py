"""Two gloo processes give the gradient of one: 10 documents, 9 that cannot be shared evenly, 3 for four parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import Forking
from safetensors.torch import load_file

from afterword.methods import METHODS

pytestmark = pytest.mark.timeout(600)
PROGRAM = """
import copy, json, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from afterword.data.batching import Packing
from afterword.methods import METHODS
from afterword.models import freeze
from afterword.training import AdaptationTrainer, training_arguments
from afterword.data.mixture import SourceShare
from afterword.training import written_documents
from afterword.training.sources import MixtureSource
from scripted import open_scripted

# A tiny model's context holds no prompt of those that write.
written_documents.open_writer = open_scripted
folder = Path(sys.argv[1])
rows = json.loads((folder / "rows.json").read_text())
loaded = {
    which: AutoModelForCausalLM.from_pretrained(folder / which, dtype=torch.float32)
    for which in ("student", "reference")
}
tokenizer = AutoTokenizer.from_pretrained(folder / "student")
for name, count, accumulation in json.loads(sys.argv[2]):
    method, model = METHODS[name], copy.deepcopy(loaded["student"])
    arguments = training_arguments(
        method, output_dir=str(folder / "out"), seed=3, gradient_accumulation_steps=accumulation, use_cpu=True
    )
    texts = json.loads((folder / "general.json").read_text())
    general = MixtureSource(documents=texts, share=SourceShare(tokens=0.4), held_out=texts[:3])
    trainer = AdaptationTrainer(
        model, arguments, train_dataset=rows[:count], mixture={"general": general} if method.takes_general_text else {},
        processing_class=tokenizer, method=method,
        teacher=freeze(copy.deepcopy(loaded["reference"])), documents_per_step=max(count, 4), packing=Packing(128),
        eval_dataset=rows[-2:],
    )
    wrapped, _ = trainer._prepare_for_training(1, trainer.get_train_dataloader(), None)
    parts, total = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), accumulation, trainer.args.device)
    for i, batches in enumerate(parts):
        if i < len(parts) - 1:
            with trainer.accelerator.no_sync(wrapped):
                trainer.training_step(wrapped, batches, total)
        else:
            trainer.training_step(wrapped, batches, total)
    evaluated = trainer.evaluate() if count == 10 else {}
    if trainer.is_world_process_zero():
        done = f"{name}-{count}-{accumulation}-{trainer.args.world_size}"
        (folder / f"{done}.json").write_text(json.dumps(evaluated))
        grads = {n: p.grad.contiguous() for n, p in model.named_parameters()}
        save_file(grads, folder / f"{done}.safetensors")
"""
COUNTS, UNEVEN = ((10, 1), (3, 2)), ((9, 1), (9, 2))
# How a step that cannot be shared evenly is cut is no matter of a method: one of the two ways for each.
CASES = [
    (name, *counts)
    for i, (name, method) in enumerate(METHODS.items())
    for counts in (*COUNTS, *(() if method.view.writes else UNEVEN[i % 2 :][:1]))
]


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
    forking: Forking,
    pair: Any,
    tokenizer: Any,
    documents: Any,
    general_rows: Any,
) -> Path:
    """A folder with gradients and evaluation of every case on one process and on two."""
    folder = tmp_path_factory.mktemp("processes")
    student, reference = pair()
    student.save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "student")
    reference.save_pretrained(folder / "reference")
    (folder / "rows.json").write_text(json.dumps(documents))
    (folder / "general.json").write_text(json.dumps(general_rows))
    (folder / "program.py").write_text(PROGRAM)
    for processes in (1, 2):
        forking.run(folder, folder / "program.py", folder, json.dumps(CASES), processes=processes)
    return folder


def named(case: tuple[Any, ...], processes: int, kind: str) -> str:
    return f"{'-'.join(map(str, case))}-{processes}.{kind}"


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_gradient_of_one(case: Any, done: Path, assert_close: Any) -> None:
    one, two = (load_file(done / named(case, processes, "safetensors")) for processes in (1, 2))
    assert_close(two, one, 1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case[1:] == (10, 1)])
def test_two_processes_evaluate_as_one_does(case: Any, done: Path) -> None:
    one, two = (json.loads((done / named(case, processes, "json")).read_text()) for processes in (1, 2))
    assert one.keys() == two.keys() >= {"eval_loss", "eval_nll_nats"}
    for name in one.keys() - {"eval_seconds"}:
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
