"""Quantised teachers: what is in bits, what stays, and how far the whole is from the exact one."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from afterword import models
from afterword.errors import ConfigError
from afterword.settings.adapt import read_settings
from afterword.training import run_adaptation
from afterword.training.memory import bytes_of
from afterword.types import Batch, InputRows


def a_batch(length: int = 12, vocabulary: int = 300) -> Batch:
    """One text whose teacher view is read at every position but the last."""
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(5))
    view = InputRows(ids, torch.arange(length)[None], None, torch.arange(length - 1), length)
    nothing = torch.zeros(length - 1, dtype=torch.int64)
    weights = torch.ones(length - 1)
    return Batch(view, (view,), ids[0, 1:], weights, nothing, nothing, 0, float(length - 1), ("a",))


def test_linear_layers_of_the_backbone_are_int8_and_nothing_else(build_model: Any) -> None:
    exact = build_model("qwen3")
    quantised = models.quantised(copy.deepcopy(exact), "int8")
    changed = {name for name, p in quantised.named_parameters() if type(p.data) is not torch.Tensor}
    layers = {f"{name}.weight" for name, module in exact.model.named_modules() if isinstance(module, nn.Linear)}
    assert changed == {f"model.{name}" for name in layers}
    for name, parameter in exact.named_parameters():
        if name not in changed:
            assert torch.equal(dict(quantised.named_parameters())[name], parameter)


def test_int8_weights_take_a_byte_a_value(build_model: Any) -> None:
    exact = build_model("qwen3")
    layers = [module for module in exact.model.modules() if isinstance(module, nn.Linear)]
    before = bytes_of(exact.parameters())
    after = bytes_of(models.quantised(copy.deepcopy(exact), "int8").parameters())
    # Beside them a float32 scale and an int8 zero point for every row.
    by_hand = sum(3 * layer.weight.numel() - 5 * layer.out_features for layer in layers)
    assert before - after == by_hand


def test_any_other_precision_changes_nothing(build_model: Any) -> None:
    exact = build_model("qwen3")
    assert models.quantised(exact, "auto") is exact
    assert all(type(p.data) is torch.Tensor for p in exact.parameters())


def test_the_error_is_the_mean_kl_from_the_exact_teacher(build_model: Any, perturb: Any) -> None:
    """Against a loop in float64; the other direction is another number, once they are far enough apart."""
    exact = build_model("qwen3")
    quantised = perturb(copy.deepcopy(exact), scale=0.05)
    batch = a_batch()
    found, positions = models.quantisation_error_nats(exact, quantised, [batch, batch])
    logps = [m(batch.student.input_ids).logits[0, :-1].double().log_softmax(-1).detach() for m in (exact, quantised)]
    by_hand = [
        sum(float((p[t].exp() * (p[t] - q[t])).sum()) for t in range(len(p))) / len(p) for p, q in (logps, logps[::-1])
    ]
    assert positions == 2 * (12 - 1)
    assert found == pytest.approx(by_hand[0], rel=1e-4)
    assert found != pytest.approx(by_hand[1], rel=1e-3)


def test_int8_is_near_the_exact_teacher(build_model: Any) -> None:
    exact = build_model("qwen3")
    found, _ = models.quantisation_error_nats(exact, models.quantised(copy.deepcopy(exact), "int8"), [a_batch()])
    assert 0 < found < 1e-3


def test_an_exact_teacher_is_at_distance_0(build_model: Any) -> None:
    model = build_model("qwen3")
    found, _ = models.quantisation_error_nats(model, copy.deepcopy(model), [a_batch()])
    assert math.isclose(found, 0.0, abs_tol=1e-9)


def test_a_run_says_the_error_before_it_trains_and_keeps_it(model_folder: Path, documents: Any, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    raw = {"model_name_or_path": str(model_folder), "output_dir": str(tmp_path / "run"), "teacher_precision": "int8"}
    run_adaptation(read_settings({**raw, "method": "disc", "max_steps": 2}), documents, console=console)
    said = console.export_text()
    kept = json.loads((tmp_path / "run" / "data.json").read_text())["teacher"]
    assert kept["precision"] == "int8"
    assert kept["kl_nats"] > 0
    assert kept["positions"] > 0
    assert f"The int8 teacher is {kept['kl_nats']:.3g} nats per token from the exact one" in said
    assert said.index("int8 teacher") < said.index("step 0/2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there int4 has kernels")
def test_int4_is_refused_where_it_has_no_kernels() -> None:
    with pytest.raises(ConfigError, match=r"teacher_precision: int4 has kernels only for CUDA.*Use int8\."):
        models.refuse_bits("int4", adapter=False)


def test_a_teacher_that_is_no_copy_is_not_quantised() -> None:
    with pytest.raises(ConfigError, match=r"teacher_precision: int8 with use_peft.*Use auto\."):
        models.refuse_bits("int8", adapter=True)
    models.refuse_bits("bf16", adapter=True)


def test_without_torchao_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"teacher_precision: int8 needs torchao.*pip install 'afterword\[small\]'"):
        models.refuse_bits("int8", adapter=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_int4_on_a_gpu_is_near_the_exact_teacher(build_model: Any) -> None:
    exact = build_model("qwen3", hidden_size=256, intermediate_size=512).to("cuda", torch.bfloat16)
    quantised = models.quantised(copy.deepcopy(exact), "int4")
    from afterword.data.batching import to_device

    found, _ = models.quantisation_error_nats(exact, quantised, [to_device(a_batch(), torch.device("cuda"))])
    assert 0 < found < 0.5
