"""What a result is saved in: the precision that the model came in, or the one that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from afterword import ConfigError, adapt
from afterword.config import read_settings
from afterword.models import load_model, load_tokenizer


@pytest.fixture
def half(tmp_path: Path, model_folder: Path) -> Path:
    """The tiny model saved in bfloat16."""
    load_model(str(model_folder), dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    load_tokenizer(str(model_folder)).save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def stored(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The precision that the configuration names, and the weights as they are in the file."""
    return json.loads((folder / "config.json").read_text())["dtype"], load_file(folder / "model.safetensors")


def test_float32_keeps_the_steps_that_bfloat16_rounds_away(half: Path, tmp_path: Path, documents: Any):
    how = {"max_steps": 2, "learning_rate": 1e-7, "warmup_steps": 0}
    start, moved = load_file(half / "model.safetensors"), {}
    for precision, dtype in ((None, torch.bfloat16), ("bf16", torch.bfloat16), ("float32", torch.float32)):
        adapt(str(half), documents, output_dir=tmp_path / str(precision), save_precision=precision, **how)
        named, weights = stored(tmp_path / str(precision))
        assert (named, {value.dtype for value in weights.values()}) == (str(dtype).removeprefix("torch."), {dtype})
        changed = sum(int((value.float() != start[name].float()).sum()) for name, value in weights.items())
        moved[precision] = changed / sum(value.numel() for value in weights.values())
    assert moved[None] == moved["bf16"] < 0.05 < 0.5 < moved["float32"]


def test_an_adapter_has_a_precision_of_its_own(half: Path, tmp_path: Path, documents: Any):
    given = {"model_name_or_path": "m", "output_dir": "o", "use_peft": True, "save_precision": "float32"}
    with pytest.raises(ConfigError, match=r"save_precision: float32 is for whole models, .* leave it out"):
        read_settings(given)
    how = {"use_peft": True, "merge_adapter": True, "max_steps": 1, "save_precision": "float32"}
    run = adapt(str(half), documents, output_dir=tmp_path / "run", **how)
    assert stored(run.path / "merged")[0] == "float32"
