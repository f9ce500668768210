"""Stopped and resumed with small optimizer states: two steps and two more are four in one go, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from afterword import TrainingError, adapt

pytestmark = pytest.mark.usefixtures("unseen")

SETTINGS: dict[str, Any] = {"max_steps": 4, "save_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "cosine"}
KINDS: dict[str, dict[str, Any]] = {
    "float32-moments": {"precision": "bf16", "optimizer_states": "float32"},
    "8bit-moments": {"precision": "bf16", "optimizer_states": "8bit"},
    "8bit-moments-float32-weights": {"precision": "float32", "optimizer_states": "8bit"},
    "8bit-moments-lora": {"optimizer_states": "8bit", "use_peft": True, "lora_dropout": 0.2, "lora_r": 64},
}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: Any, build_model: Any, tokenizer: Any) -> Path:
    """Large enough for blocks of 8-bit moments."""
    folder = tmp_path_factory.mktemp("wide")
    build_model(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    (file,) = run.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_and_two_more_are_four_in_one_go(
    kind: str, wide_model: Path, documents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afterword.training import run as adapting
    from afterword.training.callbacks import RichProgress

    def run(folder: str) -> Any:
        return adapt(
            str(wide_model), documents[:6], output_dir=tmp_path / folder, method="disc", **SETTINGS, **KINDS[kind]
        )

    class Stopping(RichProgress):
        def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    run("through")
    with monkeypatch.context() as patched:
        patched.setattr(adapting, "RichProgress", Stopping)
        with pytest.raises(TrainingError, match="checkpoint-2 is intact"):
            run("run")
    assert run("run").resumed_from == 2
    through, resumed = weights(tmp_path / "through"), weights(tmp_path / "run")
    assert [name for name in through if not torch.equal(through[name], resumed[name])] == []
    saved = torch.load(tmp_path / "run" / "checkpoint-4" / "optimizer.pt", weights_only=True)
    made = {type(value).__name__ for state in saved["state"].values() for value in state.values()}
    assert ("OptimState8bit" in made) == (KINDS[kind]["optimizer_states"] == "8bit")
