"""FSDP2 and ZeRO-3 on two gloo processes gives what one process gives: gradients, results, and resumed runs."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ON_TWO_PROCESSES, run_python
from forked import Forking
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from sharded_program import CASES, RUN_BY

sys.path.pop(0)

PROGRAM = str(Path(__file__).with_name("sharded_program.py"))
DEEPSPEED = Path(sys.prefix) / "deepspeed"
"""Where `make test-deepspeed` puts it: apart, because accelerate imports it wherever it finds it."""
HAS_DEEPSPEED = DEEPSPEED.is_dir() or importlib.util.find_spec("deepspeed") is not None
pytestmark = pytest.mark.timeout(900)
RESULTS = {
    "full": ["model.safetensors"],
    "plain": ["model.safetensors"],
    "lora": ["adapter_model.safetensors", "merged/model.safetensors"],
}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    forking: Forking,
    build_model: Any,
    perturb: Any,
    tokenizer: Any,
    documents: Any,
    general_rows: Any,
) -> Path:
    """A folder in which everything was run on one process, and on two by FSDP: one launch each."""
    folder = tmp_path_factory.mktemp("sharded")
    for head in ("tied", "untied"):
        reference = build_model("llama", tie_word_embeddings=head == "tied")
        reference.tie_weights()
        reference.save_pretrained(folder / f"reference-{head}")
        perturb(reference).save_pretrained(folder / f"student-{head}")
        tokenizer.save_pretrained(folder / f"student-{head}")
    for name, rows in {"rows": documents, "general": general_rows}.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
        lines = folder / ("docs.jsonl" if name == "rows" else "general.jsonl")
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    forking.run(folder, PROGRAM, "one", seconds=600)
    forking.run(folder, PROGRAM, "fsdp", processes=2, seconds=600)
    return folder


@pytest.fixture(scope="module")
def zero3(place: Path) -> None:
    """The same by ZeRO-3, as a person launches it: it could not be forked, as accelerate looks for it when imported."""
    environment = {
        "COLUMNS": "200",
        "DS_ACCELERATOR": "cpu",
        # No lock of another process is waited for, should anything be compiled.
        "TORCH_EXTENSIONS_DIR": str(place / "extensions"),
        "PYTHONPATH": os.pathsep.join([str(DEEPSPEED), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
    }
    run_python(*ON_TWO_PROCESSES, PROGRAM, "zero3", environment=environment, cwd=place, seconds=600)


@pytest.fixture
def launched(how: str, request: pytest.FixtureRequest) -> None:
    """Whatever way is asked for was run."""
    if how == "zero3":
        request.getfixturevalue("zero3")


BARS = {"bf16": 5e-3, "lora-bf16": 1e-2}
"""Autocast rounds a micro-batch's gradient of a weight, and other micro-batches are cut on two processes.

Found are 2.5e-3 and 5.4e-3; autocast itself puts the second 2.2e-2 from exact products. Weights gathered in bfloat16,
as accelerate would do it, put the first case at 2.5e-2; the second does not notice it.
"""
WITH_DEEPSPEED = pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not installed")
MARKS = {"fsdp": (), "zero3": (pytest.mark.deepspeed, WITH_DEEPSPEED)}
WAYS = [pytest.param(how, marks=marks) for how, marks in MARKS.items()]
SHARDED_RUNS = [pytest.param(name, how, marks=marks) for how, marks in MARKS.items() for name in RUN_BY[how]]


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_shards_give_the_gradient_of_one(
    case: str, how: str, place: Path, assert_close: Any
) -> None:
    alone, sharded = (load_file(place / f"{case}-{way}.safetensors") for way in ("one", how))
    assert_close(sharded, alone, BARS.get(case, 1e-5))


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(("name", "how"), SHARDED_RUNS)
def test_a_sharded_run_leaves_the_result_of_one_process(name: str, how: str, place: Path, assert_close: Any) -> None:
    alone, sharded = place / f"{name}-one", place / f"{name}-{how}"
    files = [{file.name for file in folder.iterdir() if file.is_file()} for folder in (alone, sharded)]
    # The first look at what changed is of runs of one process.
    assert files[0] - {"learned.json"} == files[1]
    for file in RESULTS[name]:
        assert_close(load_file(sharded / file), load_file(alone / file), 1e-5)
    for rows in zip(*(_metrics(folder) for folder in (alone, sharded)), strict=True):
        assert rows[1] == pytest.approx(rows[0], rel=1e-4)


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(("name", "how"), SHARDED_RUNS)
def test_a_sharded_run_that_was_stopped_ends_with_the_same_weights(name: str, how: str, place: Path) -> None:
    through, resumed = place / f"{name}-{how}", place / f"{name}-{how}-resumed"
    assert json.loads((resumed / "state.json").read_text())["status"] == "complete"
    for file in RESULTS[name]:
        assert (through / file).read_bytes() == (resumed / file).read_bytes()
    assert _metrics(through) == _metrics(resumed)


def _metrics(folder: Path) -> list[dict[str, float]]:
    """What every row says of the loss.

    Not tokens, which are those of the main process alone; nor sources, where positions of no weight count that a
    process reads to have something to do.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "train/", "eval/loss", "eval/nll")
    return [{name: value for name, value in row.items() if name.startswith(kept)} for row in rows]
