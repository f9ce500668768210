"""A run within a budget, whole: what is chosen, what is fixed, what is saved, and what is done again after a stop."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from afterword import METHODS, adapt
from afterword.budget import choice as choosing
from afterword.budget import run as guided
from afterword.budget.yardstick import build_yardsticks
from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import ConfigError
from afterword.models import load_adapted, load_model
from afterword.report.pages import write_report
from afterword.settings.adapt import read_settings

QUIET = Console(quiet=True)


@pytest.fixture
def file(documents, tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in documents))
    return path


def asked(model_folder, file, tmp_path, **more):
    given = {"model_name_or_path": str(model_folder), "documents": [str(file)], "output_dir": str(tmp_path / "run")}
    return read_settings({"method": "finetune", "num_train_epochs": 2, **given, **more})


def record_of(settings):
    return json.loads((Path(settings.output_dir) / "budget.json").read_text())


@pytest.fixture
def counted(monkeypatch):
    """The rates that pilots were run with."""
    rates, real = [], choosing.load_trainer

    def load(settings, *more):
        # Without a rate it is only looked whether the run can be run.
        rates.extend([settings.learning_rate] if settings.learning_rate else [])
        return real(settings, *more)

    monkeypatch.setattr(choosing, "load_trainer", load)
    return rates


@pytest.mark.parametrize("more", [{}, {"use_peft": True, "lora_dropout": 0.0}], ids=["full", "lora"])
def test_what_is_saved_keeps_the_budget_and_uses_it(model_folder, file, tmp_path, counted, more):
    settings = asked(model_folder, file, tmp_path, forgetting_budget="0.02nats", **more)
    guided.run_within_budget(settings, console=QUIET)
    record, used = record_of(settings), yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [pilot["learning_rate"] for pilot in record["pilots"]] == counted
    assert used["learning_rate"] == record["chosen"]["learning_rate"] in counted
    assert (used["num_train_epochs"], used["lr_scheduler_type"]) == (2, "linear")
    assert record["taken"]["standing"]["lost"] <= 0.02
    # Measured again, on what is served.
    corpus = read_corpus([str(file)], cache_dir=tmp_path / "corpus", options=CorpusOptions())
    (stick,) = build_yardsticks(settings, [[corpus[i] for i in range(len(corpus))]], contextlib.nullcontext)
    served = stick.standing(load_adapted(str(tmp_path / "run")), contextlib.nullcontext)
    assert served.drift_nats == pytest.approx(record["taken"]["standing"]["drift_nats"], rel=0.02)
    assert served.learned_nats > 0
    # Without a blank line before it a table is none.
    lines = write_report(tmp_path / "run")[1].read_text().splitlines()
    tables = [n for n, line in enumerate(lines) if line.startswith("|") and not lines[n - 1].startswith("|")]
    assert [lines[n - 1] for n in tables] == [""] * len(tables)
    assert any("Lost at the end" in lines[n] for n in tables)


def test_fixed_values_win_and_need_no_pilots(model_folder, file, tmp_path, counted):
    settings = asked(model_folder, file, tmp_path, learning_rate=1e-3, num_train_epochs=1)
    guided.run_within_budget(settings, console=QUIET)
    assert counted == []
    assert record_of(settings)["chosen"] == {"lr_scheduler_type": "linear"}
    used = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (used["learning_rate"], used["num_train_epochs"]) == (1e-3, 1)


def test_a_preset_is_the_papers_constants_and_nothing_else(model_folder, file, tmp_path, counted):
    result = adapt(model_folder, file, output_dir=tmp_path / "run", preset="disc-paper", max_documents=4)
    used = yaml.safe_load((result.path / "config.yaml").read_text())
    declared = METHODS["disc"].defaults
    assert {name: used[name] for name in ("learning_rate", "num_train_epochs", "lr_scheduler_type")} == {
        name: declared[name] for name in ("learning_rate", "num_train_epochs", "lr_scheduler_type")
    }
    assert used["temperature"] == 2.0
    assert counted == []
    assert not (result.path / "budget.json").exists()


def test_a_run_that_was_stopped_goes_on_from_its_pilots_to_the_same_weights(
    model_folder, file, tmp_path, counted, monkeypatch
):
    whole = asked(model_folder, file, tmp_path / "whole")
    guided.run_within_budget(whole, console=QUIET)
    rates = list(counted)
    counted.clear()
    settings, real = asked(model_folder, file, tmp_path / "stopped"), choosing.save_record

    def stop_after_two(run, record):
        real(run, record)
        if len(record["pilots"]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(choosing, "save_record", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            guided.run_within_budget(settings, console=QUIET)
    guided.run_within_budget(settings, console=QUIET)
    assert counted == rates
    first, second = (load_model(each.output_dir).state_dict() for each in (whole, settings))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    counted.clear()
    assert guided.run_within_budget(settings, console=QUIET).already_complete
    assert counted == []


def test_pilots_of_other_settings_are_not_taken(model_folder, file, tmp_path, counted, monkeypatch):
    def stop(run, record):
        choosing_save(run, record)
        raise KeyboardInterrupt

    choosing_save = choosing.save_record
    with monkeypatch.context() as patch:
        patch.setattr(choosing, "save_record", stop)
        with pytest.raises(KeyboardInterrupt):
            guided.run_within_budget(asked(model_folder, file, tmp_path), console=QUIET)
    counted.clear()
    settings = asked(model_folder, file, tmp_path, seed=1)
    guided.run_within_budget(settings, console=QUIET)
    assert len(counted) == len(record_of(settings)["pilots"])


def test_models_in_shards_are_refused_before_anything_is_read(model_folder, tmp_path):
    settings = asked(model_folder, tmp_path / "no such file", tmp_path, trainer={"fsdp": "full_shard"})
    with pytest.raises(ConfigError, match=r"forgetting_budget: .*fsdp"):
        guided.run_within_budget(settings, console=QUIET)


def test_the_dry_run_says_what_is_chosen_and_trains_nothing(afterword, model_folder, file, tmp_path):
    said = afterword(
        "adapt", str(model_folder), str(file), "-o", str(tmp_path / "run"), "--method", "disc", "--dry-run"
    )
    assert said.code == 0
    assert "a learning rate by pilot runs, 6 passes, linear. Forgetting budget: " in said.out
    assert not (tmp_path / "run").exists()
