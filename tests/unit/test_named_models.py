"""What comes with the package is found by its name, from the command line and from Python alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import afterword
from afterword.errors import CheckpointError
from afterword.models import load_model, load_tokenizer, model_folder
from afterword.named_models import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_loads_by_its_name(name: str) -> None:
    assert sum(parameter.numel() for parameter in load_model(name).parameters()) > 2e6
    assert len(load_tokenizer(name)) > 256


def test_python_takes_names_as_the_command_line_does_and_keeps_them(tmp_path: Path) -> None:
    text = "Mara Lind was born in Oslo. She moved to Bergen. The bakery sells bread."
    run = afterword.adapt(
        "almanac-chat", [{"text": text}], output_dir=tmp_path / "run", preset="disc-paper", max_steps=1, use_peft=True
    )
    assert yaml.safe_load((run.path / "config.yaml").read_text())["model_name_or_path"] == "almanac-chat"
    # Whoever serves the adapter needs a folder.
    base = json.loads((run.path / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base) == MODELS["almanac-chat"]
    scores = afterword.evaluate(run.path, suite="almanac", max_items=8, samples=0, max_documents=1, split="dev")
    assert scores.reference == "almanac-chat"
    assert [score for score in scores.scores if score.change]


def test_a_slip_is_told_at_once_and_a_folder_of_that_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model 'almanac-chatt'\. Did you mean almanac-chat\?"):
        model_folder("almanac-chatt")
    with pytest.raises(CheckpointError, match=r"'smollm2-135m-instuct'\. Did you mean smollm2-135m-instruct\?"):
        model_folder("smollm2-135m-instuct")
    monkeypatch.chdir(tmp_path)
    Path("almanac-chatt").mkdir()
    assert [model_folder(name) for name in ("almanac-chatt", "someone/almanac-chatt")] == [
        "almanac-chatt",
        "someone/almanac-chatt",
    ]
