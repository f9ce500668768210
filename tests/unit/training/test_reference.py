"""The first model of several runs in a row: teacher, yardstick and start of the way, and nothing else of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from afterword import adapt
from afterword.budget.choice import way_to
from afterword.errors import CheckpointError, ConfigError
from afterword.evaluation import evaluate
from afterword.models import load_model
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.training.run import load_trainer, method_of
from afterword.training.teacher_choice import teacher_of

FIXED = {"learning_rate": 1e-3, "num_train_epochs": 1.0, "lr_scheduler_type": "constant", "max_steps": 3}


@pytest.fixture(scope="session")
def moved_folder(tmp_path_factory: Any, tokenizer: Any, build_model: Any, perturb: Any) -> Path:
    """What the tiny model became."""
    folder = tmp_path_factory.mktemp("models") / "moved"
    perturb(build_model("llama")).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def file(documents: Any, tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(str(folder)).named_parameters())


def alike(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def asked(model: Path, file: Path, run: Path, **more: Any) -> AdaptSettings:
    given = {"model_name_or_path": str(model), "documents": [str(file)], "output_dir": str(run), **FIXED}
    return read_settings({**given, **more})


def test_a_method_is_taught_by_the_reference(moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path):
    for more in ({}, {"use_peft": True}, {"teacher": "cached"}):
        settings = asked(moved_folder, file, tmp_path, method="lwf", reference=str(model_folder), **more)
        teacher = teacher_of(settings, method_of(settings), torch.float32)
        assert teacher, more
        first = weights(model_folder)
        assert all(torch.equal(value, first[name]) for name, value in teacher.model.named_parameters()), more


def test_the_loss_of_the_first_step_is_against_the_reference(
    moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path
):
    # Before the first step the students are the same, and only what teaches them differs.
    def first_loss(run: str, **more: Any) -> float:
        adapt(moved_folder, file, method="disc", output_dir=tmp_path / run, strategy="all", **FIXED, **more)
        rows = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return rows[0]["train/loss_nats"]

    assert first_loss("held", reference=str(model_folder)) != first_loss("own")


def test_a_reference_that_is_the_model_itself_changes_no_bit(moved_folder: Path, file: Path, tmp_path: Path):
    how = {"method": "finetune_kl", "l2sp": 0.1, **FIXED}
    plain = adapt(moved_folder, file, output_dir=tmp_path / "plain", **how).path
    held = adapt(moved_folder, file, output_dir=tmp_path / "held", reference=str(moved_folder), **how).path
    assert alike(plain, held)


def test_l2sp_pulls_to_the_reference(moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path):
    settings = asked(moved_folder, file, tmp_path / "run", method="finetune", reference=str(model_folder), l2sp=0.5)
    trainer, _ = load_trainer(settings, None, tmp_path / "run")
    first = weights(model_folder)
    assert trainer.start.keys() == first.keys()
    assert all(torch.equal(trainer.start[name], value) for name, value in first.items())


def test_the_way_of_a_budget_begins_at_the_reference(
    moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path
):
    settings = asked(moved_folder, file, tmp_path, reference=str(model_folder))
    model = load_model(str(moved_folder))
    way, first, moved = way_to(model, settings), weights(model_folder), weights(moved_folder)
    for share in (0.0, 0.25, 1.0):
        way.at(share)
        for name, value in model.named_parameters():
            torch.testing.assert_close(value, torch.lerp(first[name], moved[name], share))


def test_what_is_lost_is_measured_against_the_reference(
    moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path
):
    run = adapt(
        moved_folder, file, method="finetune", output_dir=tmp_path / "run", reference=str(model_folder), **FIXED
    ).path
    found = evaluate(run, samples=0)
    assert found.reference == str(model_folder)
    alone = evaluate(model_folder, documents=[str(file)], samples=0)
    seen = json.loads((run / "learned.json").read_text())["scores"]
    before = next(score for score in found.scores if score.metric == "target_nll_nats").before
    assert before.value == next(s for s in alone.scores if s.metric == "target_nll_nats").after.value
    assert next(s for s in seen if s["metric"] == "target_nll_nats")["before"]["value"] == pytest.approx(before.value)


def test_a_run_is_not_resumed_with_another_reference(
    moved_folder: Path, model_folder: Path, file: Path, tmp_path: Path
):
    how = {"method": "finetune", "output_dir": tmp_path / "run", **FIXED}
    adapt(moved_folder, file, reference=str(model_folder), **how)
    for other in ({}, {"reference": str(moved_folder)}):
        with pytest.raises(CheckpointError, match=r"reference: the run in .* is held to another model"):
            adapt(moved_folder, file, **how, **other)


def test_what_an_adapter_cannot_do_is_refused_before_anything_is_loaded():
    given = {"model_name_or_path": "a", "reference": "b", "use_peft": True, "teacher": "adapter_off", "l2sp": 0.1}
    with pytest.raises(ConfigError) as refused:
        read_settings(given)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["teacher", "l2sp", "forgetting_budget"]
