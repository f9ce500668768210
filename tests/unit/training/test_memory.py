"""The parts of the estimate that are counted, by hand; those that are measured, by what must be true of them."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forking

from afterword.models import quantised
from afterword.settings.adapt import read_settings
from afterword.training import dry_run, memory, small_adamw
from afterword.training.dry_run import DryRun
from afterword.training.memory import Memory, bytes_of, moment_bytes, peak_bytes
from afterword.training.small_adamw import RoundedAdamW, RoundedAdamW8bit

CPU = torch.device("cpu")
DRY_RUN = sys.modules[DryRun.__module__]
"""By this name the package offers the function of the module."""
# The tiny Llama: vocabulary 300, hidden 32, intermediate 48, 4 heads of 8 on 2 keys, 2 layers, untied.
LAYER = 32 * 32 + 2 * (32 * 16) + 32 * 32 + 3 * (32 * 48) + 2 * 32
PARAMETERS = 300 * 32 + 2 * LAYER + 32 + 300 * 32
ROTARY = 4 * 4


@pytest.fixture
def estimate(model_folder: Path, documents: Any) -> Callable[..., DryRun]:
    """`estimate(precision="bf16")`: the dry run of the tiny Llama with these settings."""

    def run(**raw: Any) -> DryRun:
        given = {"model_name_or_path": str(model_folder), "method": "disc", **raw}
        return dry_run(read_settings(given), documents)

    return run


@pytest.mark.filterwarnings("ignore:Trained weights are in")
@pytest.mark.parametrize(
    ("raw", "weight", "moments"),
    [
        ({}, 4, 8),
        ({"precision": "bf16_mixed"}, 4, 8),
        ({"precision": "bf16"}, 2, 4),
        ({"precision": "bf16", "optimizer_states": "float32"}, 2, 8),
        # Every weight of the tiny model is too small, or no multiple of a block: none of them is in 8 bits.
        ({"precision": "bf16", "optimizer_states": "8bit"}, 2, 8),
    ],
)
def test_what_is_held_is_counted_exactly(estimate: Any, raw: Any, weight: int, moments: int) -> None:
    found = estimate(**raw).memory
    # Of rotary frequencies the model keeps what it uses and what it began with.
    assert found.weights - weight * PARAMETERS in (ROTARY, 2 * ROTARY)
    assert found.teacher == found.weights
    assert found.gradients == weight * PARAMETERS
    assert found.moments == moments * PARAMETERS
    assert found.kept == 0


def test_an_adapter_has_gradients_and_moments_of_its_own_and_no_teacher(estimate: Any) -> None:
    plan = estimate(use_peft=True, lora_r=4)
    # Rank 4 beside every linear layer of the backbone: in + out.
    adapter = 4 * 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 48))
    assert plan.trained_parameters == adapter
    assert (plan.memory.teacher, plan.memory.gradients, plan.memory.moments) == (0, 4 * adapter, 8 * adapter)
    assert plan.memory.weights - 4 * (PARAMETERS + adapter) in (ROTARY, 2 * ROTARY)


def test_without_a_teacher_none_is_counted(estimate: Any) -> None:
    assert estimate(method="finetune").memory.teacher == 0


def test_what_holds_the_weights_back_is_counted(estimate: Any) -> None:
    assert estimate(l2sp=0.1).memory.kept == 4 * PARAMETERS
    assert estimate(l2sp=0.1, ema=0.9).memory.kept == 8 * PARAMETERS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("states", [None, "float32", "8bit"])
def test_moments_are_counted_as_the_optimizers_make_them(states: str | None, dtype: torch.dtype) -> None:
    kinds: dict[str | None, Any] = {
        None: torch.optim.AdamW,
        "float32": lambda weights: RoundedAdamW(weights, lr=1e-3, seed=0),
        "8bit": lambda weights: RoundedAdamW8bit(weights, lr=1e-3, seed=0),
    }
    # In blocks; too small for them; large, and no multiple of 256.
    weights = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in ((64, 128), (32, 32), (99, 101))]
    optimizer = kinds[states](weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for weight in weights:
        made = [value for name, value in optimizer.state[weight].items() if name != "step"]
        assert moment_bytes(weight, states) == bytes_of(made)
    assert moment_bytes(weights[0], "8bit") == 2 * (64 * 128 + 4 * 64 * 128 // 256 + 1024)


def test_pieces_are_as_large_as_the_optimizer_makes_them() -> None:
    assert memory._PIECE == small_adamw.PIECE_ELEMENTS


def test_tied_weights_and_views_are_counted_once(build_model: Any) -> None:
    tied = torch.zeros(300, 32)
    assert bytes_of([tied, tied[:10], tied.T]) == 4 * 300 * 32
    on_meta = torch.zeros(300, 32, device="meta")
    assert bytes_of([on_meta, on_meta.T, torch.zeros(2, device="meta")]) == 4 * 300 * 32 + 8
    exact = build_model("qwen3")
    assert bytes_of(quantised(copy.deepcopy(exact), "int8").parameters()) < bytes_of(exact.parameters())


def test_the_optimizers_step_comes_when_activations_are_gone() -> None:
    parts: dict[str, Any] = {"weights": 1, "teacher": 2, "gradients": 4, "moments": 8, "kept": 16}
    assert Memory(**parts, passing=100, updating=1000).total == 1031
    assert Memory(**parts, passing=1000, updating=100).total == 1031


def work(megabytes: int) -> Callable[[], None]:
    """Makes a tensor of so many MiB, views and for a moment a copy of it, twice; and leaves one of half of them."""
    left: list[torch.Tensor] = []

    def make() -> None:
        """One after the other."""
        left.clear()
        for _ in range(2):
            made = torch.ones(megabytes, 2**18)
            made.view(-1)[1:].add_(made.T.reshape(-1)[0])
        left.append(torch.ones(megabytes // 2, 2**18))

    return make


def test_the_peak_is_that_of_tensors_that_live_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(Path, "write_text", no)
    # The reshaped transpose is a copy.
    assert peak_bytes(CPU, work(8)) == (2 * 8 * 2**20, 4 * 2**20)


_OF_A_PROCESS = f"""
from __future__ import annotations
import torch
from afterword.training.memory import peak_bytes
{inspect.getsource(work)}
print(*peak_bytes(torch.device("cpu"), work(96)))
"""


@pytest.mark.skipif(not memory._RESET.exists(), reason="only Linux tells")
def test_the_peak_of_the_process_is_near_that_of_its_tensors(forking: Forking, tmp_path: Path) -> None:
    """Of a process of its own: where freed memory is kept for what comes next, the pattern of sizes counts too."""
    (tmp_path / "program.py").write_text(_OF_A_PROCESS, encoding="utf-8")
    found = forking.run(tmp_path, "program.py")
    peak, left = map(int, found.out.split()[-2:])
    assert peak == pytest.approx(2 * 96 * 2**20, rel=0.1)
    assert left == pytest.approx(48 * 2**20, rel=0.2)


def test_a_backward_pass_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of x·W, relu, ·W and sum: what is kept, and the gradients on it."""

    def no(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(Path, "write_text", no)
    weight, x = torch.ones(256, 256, requires_grad=True), torch.ones(256, 256)

    def step() -> None:
        """Forward, backward, and the gradient given back."""
        ((x @ weight).relu() @ weight).sum().backward()
        weight.grad = None

    square = 4 * 256 * 256
    peak, left = peak_bytes(CPU, step)
    assert 4 * square <= peak <= 6 * square
    assert left == 0


def test_checkpointing_lowers_what_is_kept_of_layers(
    build_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By watching every tensor: what the process has in memory also holds what other tests have left."""
    monkeypatch.setattr(memory, "_RESET", tmp_path / "nowhere" / "clear_refs")
    build_model(num_hidden_layers=8).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = [{"text": "One sentence follows the other here. " * 9}]
    raw = {"model_name_or_path": str(tmp_path), "method": "finetune"}
    kept, again = (dry_run(read_settings({**raw, "gradient_checkpointing": on}), rows) for on in (False, True))
    assert again.memory.passing < 0.6 * kept.memory.passing
    assert again.memory.weights == kept.memory.weights


def test_where_it_does_not_fit_changes_are_named_the_largest_first(
    estimate: Any, monkeypatch: pytest.MonkeyPatch, afterword: Any, model_folder: Path, documents: Any, tmp_path: Path
) -> None:
    assert estimate().savings == ()
    monkeypatch.setattr(DRY_RUN, "available_bytes", lambda: 1000)
    plan = estimate(precision="float32")
    assert plan.available == 1000
    named = [saving.settings for saving in plan.savings]
    assert {"use_peft: true", "teacher: cached", "teacher_precision: int8"} <= set(named)
    assert [saving.bytes for saving in plan.savings] == sorted((s.bytes for s in plan.savings), reverse=True)
    file = tmp_path / "documents.txt"
    file.write_text(" ".join(row["text"] for row in documents), encoding="utf-8")
    said = afterword("adapt", str(model_folder), str(file), "--dry-run")
    assert "\n\n" not in said.out, "a line that says nothing"
    assert "does not fit   " in said.out
    assert all(part in said.out for part in ("weights", "gradients", "AdamW's moments", "activations and logits"))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("use_peft: true", {"use_peft": True}),
        ("teacher_precision: int8", {"teacher_precision": "int8"}),
        ("teacher: cached", {"teacher": "cached"}),
        ("precision: bf16 with optimizer_states: 8bit", {"precision": "bf16", "optimizer_states": "8bit"}),
    ],
)
def test_a_change_holds_as_much_less_as_was_said(
    name: str, raw: Any, build_model: Any, tokenizer: Any, documents: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Beside what is measured, which varies: weights, teacher, gradients, moments and the optimizer's step."""
    # For weights this small a piece of a weight would outweigh all.
    monkeypatch.setattr(memory, "_PIECE_BYTES", 8)
    build_model(hidden_size=256, intermediate_size=512).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(DRY_RUN, "available_bytes", lambda: 1000)
    common = {"model_name_or_path": str(tmp_path), "method": "disc", "precision": "float32"}
    before = dry_run(read_settings(common), documents)
    after = dry_run(read_settings({**common, **raw}), documents)

    def held(plan: DryRun) -> int:
        """All but what is measured."""
        return plan.memory.total - plan.memory.passing

    (said,) = [saving.bytes for saving in before.savings if saving.settings == name]
    assert said == pytest.approx(held(before) - held(after), rel=0.1)
