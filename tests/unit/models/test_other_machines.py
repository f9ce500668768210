"""A Mac, simulated: torch offers `mps`, and was built without oneDNN."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import afterword
from afterword import distributed
from afterword.models import measured_precision
from afterword.models.checks import has_bfloat16_units
from afterword.objectives import products


@pytest.fixture
def a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    # Such a build has no operators of this name: to ask for one is an AttributeError.
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())


def test_everything_runs_on_its_processor(a_mac: None, model_folder: Path):
    assert (distributed.device_type(), distributed.own_device()) == ("cpu", "cpu")
    assert not has_bfloat16_units()
    assert measured_precision(str(model_folder)) == "float32"
    assert not products._rounds_to_bfloat16.__wrapped__()


def test_of_several_gpus_a_process_has_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.own_device() == "cuda:3"


def test_whether_there_is_a_gpu_is_asked_in_one_place():
    asked = list[str]()
    for path in Path(afterword.__file__).parent.rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        if any(ast.unparse(call.func).endswith(("cuda.is_available", "mps.is_available")) for call in calls):
            asked.append(path.name)
    assert asked == ["distributed.py"]
