"""Replay of what the model wrote of itself: the same run as with a file of it, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from afterword.settings.adapt import read_settings
from afterword.training.run import run_adaptation

REHEARSALS = {"method": {"method": "rehearse"}, "setting": {"own_samples": 0.25}}


@pytest.fixture
def adapted(model_folder: Path, documents: Any, tmp_path: Path) -> Callable[..., Path]:
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in documents))

    def adapt(name: str, **settings: Any) -> Path:
        given = {"model_name_or_path": str(model_folder), "documents": [str(file)], "output_dir": str(tmp_path / name)}
        given |= {
            "method": "finetune",
            "learning_rate": 1e-2,
            "max_length": 64,
            "max_steps": 2,
            "lr_scheduler_type": "linear",
        }
        return run_adaptation(read_settings({**given, **settings})).path

    return adapt


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model.safetensors")


def test_own_samples_are_written_once_and_replayed_as_a_file_of_them_is(adapted: Any, tmp_path: Path):
    run = adapted("own", own_samples=0.4)
    file = run / "own_samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    kind = {"kind": "instructions", "format": "chat"} if "messages" in rows[0] else {}
    source = {"files": str(file), "tokens": 0.4, "max_epochs": 1e6, "objective": "kl", **kind}
    same, without = adapted("file", mixture={"own_samples": source}), adapted("without")
    of_run, of_same, of_without = map(weights, (run, same, without))
    assert all(bool((of_run[name] == of_same[name]).all()) for name in of_run)
    assert any(bool((of_run[name] != of_without[name]).any()) for name in of_run)


def test_what_the_run_read_of_them_is_in_its_data(adapted: Any):
    (row,) = [
        row
        for row in json.loads((adapted("own", own_samples=0.4) / "data.json").read_text())["mixture"]
        if row["source"] == "own_samples"
    ]
    assert row["asked"]["tokens"] == 0.4
    assert row["tokens"] > 0


def test_rehearsal_is_fine_tuning_with_a_quarter_of_the_models_own_samples(adapted: Any):
    of_method, of_setting = (weights(adapted(name, **how)) for name, how in REHEARSALS.items())
    assert all(bool((of_method[name] == of_setting[name]).all()) for name in of_method)
