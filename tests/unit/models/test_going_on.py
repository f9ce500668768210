"""An adapter as the model of a next round: the same one goes on, and both together are the model as it was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from afterword import ConfigError, adapt, models
from afterword.data.batching import build_batch
from afterword.models import (
    AdapterOff,
    Between,
    LoraSettings,
    load_adapted,
    load_model,
    said,
    trained_states,
    with_lora,
)
from afterword.models.teacher_cache import given_fingerprint
from afterword.report import write_model_card
from afterword.storage.parsing import parse_yaml
from afterword.types import Example, Segment

pytestmark = pytest.mark.usefixtures("unseen")

FIRST = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0, "max_steps": 4, "learning_rate": 1e-2}
FIRST |= {"num_train_epochs": 1, "lr_scheduler_type": "linear"}
NEXT = {"use_peft": True, "max_steps": 4, "learning_rate": 1e-2, "num_train_epochs": 1, "lr_scheduler_type": "linear"}


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path, perturb: Any) -> Path:
    """The folder of an adapter on the tiny model, far enough from it to be seen."""
    adapted = perturb(with_lora(load_model(str(model_folder)), LoraSettings(r=4, alpha=8, dropout=0.0), seed=0))
    models.write_model(adapted, models.load_tokenizer(str(model_folder)), tmp_path / "first", dtype=torch.float32)
    return tmp_path / "first"


def a_view() -> Any:
    ids = np.random.default_rng(0).integers(5, 300, 24)
    positions = np.arange(23)
    segment = Segment(ids, positions, positions, ids[1:], np.ones(23, np.float32))
    return build_batch([Example("d", 0, None, (segment,))]).student


def gone_on(adapter: Path, model_folder: Path) -> Any:
    return models.go_on(load_model(str(model_folder)), str(adapter))


def test_the_teacher_is_base_and_adapter_as_they_were_given(adapter: Path, model_folder: Path, perturb: Any):
    given = load_adapted(str(adapter))
    with torch.no_grad():
        before = trained_states(given.eval(), a_view())
    student = perturb(gone_on(adapter, model_folder), seed=5)
    torch.testing.assert_close(AdapterOff(student).trained_states(a_view()), before, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(trained_states(student.eval(), a_view()), before, atol=1e-3)


def test_a_teacher_that_reads_between_forward_and_backward_changes_no_gradient(
    adapter: Path, model_folder: Path, perturb: Any
):
    student = perturb(gone_on(adapter, model_folder), seed=5)
    found = list[dict[str, torch.Tensor]]()
    for reads in (False, True):
        student.zero_grad()
        loss = trained_states(student, a_view()).square().mean()
        if reads:
            AdapterOff(student).trained_states(a_view())
        loss.backward()
        found.append({name: w.grad.clone() for name, w in student.named_parameters() if w.grad is not None})
    assert len(found[0]) > 20
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


def test_a_cached_teacher_is_another_for_another_adapter(adapter: Path, model_folder: Path, perturb: Any):
    student = gone_on(adapter, model_folder)
    first = given_fingerprint(student)
    assert first == given_fingerprint(perturb(student, seed=5))
    assert first != given_fingerprint(with_lora(load_model(str(model_folder)), LoraSettings(r=4), seed=0))


def test_the_way_of_a_budget_goes_from_the_adapter_as_it_was_given(adapter: Path, model_folder: Path, perturb: Any):
    student = gone_on(adapter, model_folder)
    way, given = Between(student), said(student)
    end = said(perturb(student, seed=5))
    for share, expected in ((0.0, given), (1.0, end)):
        way.at(share)
        torch.testing.assert_close(said(student), expected, rtol=1e-6, atol=1e-6)
    way.at(0.5)
    assert 0.1 < (said(student) - given).norm() / (end - given).norm() < 0.9


def test_two_rounds_are_one_adapter_for_one_base(
    model_folder: Path, documents: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = adapt(model_folder, documents[:5], output_dir=tmp_path / "first", **FIRST)
    second = adapt(first.path, documents[5:], output_dir=tmp_path / "second", method="disc", **NEXT)
    console = " ".join(capsys.readouterr().err.split())
    assert f"what is saved is one adapter for {model_folder}, with all rounds in it" in console
    files = [json.loads((run.path / "adapter_config.json").read_text()) for run in (first, second)]
    assert [(it["base_model_name_or_path"], it["r"], it["lora_dropout"]) for it in files] == [
        (str(model_folder), 4, 0)
    ] * 2
    assert set(files[0]["target_modules"]) == set(files[1]["target_modules"]) != set()
    before, after = (load_file(run.path / "adapter_model.safetensors") for run in (first, second))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    data = json.loads((second.path / "data.json").read_text())["adapter"]
    assert (data["adapter"], data["base"]) == (str(first.path), str(model_folder))
    config = parse_yaml((second.path / "config.yaml").read_text())
    assert (config["model_name_or_path"], config["lora_r"]) == (str(first.path), 4)
    card = write_model_card(second.path).read_text()
    assert f"base_model: {model_folder}" in card
    assert "what is saved is one adapter for" in card
    again = adapt(first.path, documents[5:], output_dir=tmp_path / "second", method="disc", **NEXT)
    assert again.already_complete


def test_an_adapter_of_another_shape_is_refused(adapter: Path, documents: Any, tmp_path: Path):
    with pytest.raises(
        ConfigError, match="lora_r: 8, and the adapter that goes on has 4: leave it out, or give the me"
    ):
        adapt(adapter, documents, output_dir=tmp_path / "run", **NEXT, lora_r=8)
    with pytest.raises(ConfigError, match="use_dora: True, and the adapter that goes on has False"):
        adapt(adapter, documents, output_dir=tmp_path / "run", **NEXT, use_dora=True)
    with pytest.raises(ConfigError, match="lora_modules_to_save: the adapter that goes on has none"):
        adapt(adapter, documents, output_dir=tmp_path / "run", **NEXT, lora_modules_to_save="lm_head")
    assert not (tmp_path / "run").exists()


def test_modules_that_were_trained_whole_cannot_go_on(model_folder: Path, tmp_path: Path):
    adapted = with_lora(load_model(str(model_folder)), LoraSettings(r=4, modules_to_save=("lm_head",)), seed=0)
    adapted.save_pretrained(tmp_path / "first")
    with pytest.raises(
        ConfigError, match=r"modules that were trained whole \(lm_head\), and cannot go on. Give the me"
    ):
        gone_on(tmp_path / "first", model_folder)
