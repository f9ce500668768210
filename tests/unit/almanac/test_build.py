"""The build of the embedded models, at two steps of its first stage."""

from __future__ import annotations

import itertools
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Forking
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from afterword.named_models import WEIGHTS
from almanac_build import stages

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from almanac_build import stages
stages.ROWS_PER_STEP = 4
stages.build_base(Path(sys.argv[1]) / "scratch", Path(sys.argv[1]) / "models", steps=2, compiled=False)
print("the same again:", torch.are_deterministic_algorithms_enabled())
"""


def test_a_build_is_a_model_and_its_tokenizer_and_asks_for_algorithms_that_repeat(tmp_path: Path, forking: Forking):
    # In a process of its own: what it asks for holds for all of one.
    (tmp_path / "build.py").write_text(SCRIPT, encoding="utf-8")
    assert "the same again: True" in forking.run(tmp_path, "build.py", tmp_path, REPOSITORY).out
    folder = tmp_path / "models" / "base"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() == pytest.approx(2.16e6, rel=0.01)
    about = json.loads((tmp_path / "models" / "base.json").read_text(encoding="utf-8"))
    assert (about["steps"], about["resumed_from"]) == (2, None)


def test_what_is_shipped_is_written_over_only_on_request(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, Path]] = []
    named = {name: lambda _, output, name=name: asked.append((name, output)) for name in ("base", "sft")}
    monkeypatch.setattr(stages, "STAGES", named)
    for given in ([], ["sft", "--output", str(WEIGHTS)], ["dop"]):
        monkeypatch.setattr(sys, "argv", ["build", *given])
        with pytest.raises(SystemExit) if given == ["dop"] else nullcontext():
            stages.main()
    models = Path("runs/almanac/models")
    assert asked == [("base", models), ("sft", models), ("sft", WEIGHTS)]


def test_a_resumed_stage_adds_up_its_seconds(build_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count(step=100)
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def seconds(steps: int, output: Path) -> int:
        quick = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
        how = {"logging_steps": 1, "save_steps": 2, "per_device_train_batch_size": 1, **quick}
        rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
        arguments = TrainingArguments(output_dir=str(tmp_path / "scratch"), max_steps=steps, **how)
        stages._train(Trainer(model=build_model("llama"), args=arguments, train_dataset=rows), "base", output)
        return json.loads((output / "base.json").read_text(encoding="utf-8"))["seconds"]

    # The clock is looked at in the beginning, at every loss and in the end: 2 steps, then 2 more.
    assert seconds(2, tmp_path / "first") == 300
    # The checkpoint was made after its second loss, at 200.
    assert seconds(4, tmp_path / "second") == 200 + 300
    assert json.loads((tmp_path / "second" / "base.json").read_text(encoding="utf-8"))["resumed_from"] == "checkpoint-2"
