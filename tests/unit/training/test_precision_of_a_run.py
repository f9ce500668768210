"""What `precision: auto` was decided to be is decided once in a run, whatever the machine would say later."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from afterword import adapt, models
from afterword.settings.yaml_files import load_yaml

pytestmark = pytest.mark.usefixtures("unseen")

HOW = {"preset": "disc-paper", "max_steps": 2}


def _measured(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.precision, "measured_precision", lambda _: found)


def test_a_run_keeps_what_was_measured_for_it(model_folder: Path, documents: Any, tmp_path: Path, monkeypatch: Any):
    _measured("bf16_mixed", monkeypatch)
    run = tmp_path / "run"
    adapt(str(model_folder), documents, output_dir=run, **HOW)
    assert load_yaml(run / "config.yaml")["precision"] == "bf16_mixed"
    # As if it had been killed: the same command on a machine that finds otherwise goes on as it began.
    (run / "model.safetensors").unlink()
    _measured("float32", monkeypatch)
    adapt(str(model_folder), documents, output_dir=run, **HOW)
    assert load_yaml(run / "config.yaml")["precision"] == "bf16_mixed"


def test_a_run_of_before_goes_on_by_the_rule_of_then(
    model_folder: Path, documents: Any, tmp_path: Path, monkeypatch: Any
):
    _measured("float32", monkeypatch)
    run, seen = tmp_path / "run", list[str]()
    adapt(str(model_folder), documents, output_dir=run, **HOW)
    for path in run.iterdir():
        if path.name in ("asked.yaml", "model.safetensors"):
            path.unlink()
    settings = {**load_yaml(run / "config.yaml"), "precision": "auto"}
    (run / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    _measured("bf16_mixed", monkeypatch)
    rule = models.unmeasured_precision()
    monkeypatch.setattr(models, "unmeasured_precision", lambda: seen.append(rule) or rule)
    asked = {name: value for name, value in settings.items() if name not in ("model_name_or_path", "documents")}
    adapt(str(model_folder), documents, **{**asked, "output_dir": str(run)})
    assert seen == [rule]
