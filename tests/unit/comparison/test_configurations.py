"""A grid over a model whose config.json was edited: what the same weights gave under another is not taken for it."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from afterword.comparison import run as running
from afterword.models import configuration_sha256, load_model
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings
from afterword.training import AdaptationTrainer

GIVEN = {"model_name_or_path": "edited", "documents": ["docs.jsonl"], "suite": "suite.jsonl", "output_dir": "out"}
GIVEN |= {"methods": "disc", "learning_rates": "1e-4", "evaluate": {"samples": 0}}
GIVEN |= {"adapt": {"max_steps": 2, "save_steps": 1}}
CELL = "out/cells/disc-lr0.0001-seed0"


def settings(**raw):
    return read_settings({**GIVEN, **raw}, CompareSettings)


def rows():
    return [json.loads(line) for line in Path("out/rows.jsonl").read_text().splitlines()]


def edit(**changes):
    """Other settings in the model's config.json."""
    config = json.loads(Path("edited/config.json").read_text())
    Path("edited/config.json").write_text(json.dumps({**config, **changes}))


def said_by(**raw):
    console = Console(file=io.StringIO(), width=200)
    running.compare(settings(**raw), console=console)
    return console.file.getvalue()


@pytest.fixture
def runs(place, by_hand, monkeypatch):
    """The runs that were trained, each with the step it was resumed from and whether it was there whole."""
    shutil.copytree((place / "model").resolve(), place / "edited")
    kept, found, real = by_hand.retention(0.9, 0.8), [], running.run_adaptation
    scores = {"scores": by_hand.scores(dev=(0.3, kept), test=(0.4, kept)), "notes": []}

    def run(cell, **how):
        result = real(cell, **how)
        found.append((Path(cell.output_dir).name, result.resumed_from, result.already_complete))
        return result

    monkeypatch.setattr(running, "measure", lambda *_: scores)
    monkeypatch.setattr(running, "run_adaptation", run)
    return found


def test_a_row_of_another_configuration_does_not_count(runs, place):
    assert "another model configuration" not in said_by()
    before = configuration_sha256(load_model("edited"))
    edit(rms_norm_eps=0.5)
    assert "rows of another model configuration (config.json): 1; their cells are run again" in said_by()
    assert said_by() == ""
    first, second = rows()
    assert first["fingerprint"] == second["fingerprint"]
    assert (first["status"], second["status"]) == ("complete", "complete")
    assert (first["configuration_sha256"], second["configuration_sha256"]) == (
        before,
        configuration_sha256(load_model("edited")),
    )
    assert runs == [("disc-lr0.0001-seed0", None, False)] * 2
    # Tables show the last row of a cell, so the way back is gone again.
    edit(rms_norm_eps=load_model("model").config.rms_norm_eps)
    said_by()
    assert [row["configuration_sha256"] == before for row in rows()] == [True, False, True]


def test_a_row_that_does_not_say_its_configuration_counts(runs, place):
    running.compare(settings())
    (row,) = rows()
    del row["configuration_sha256"]
    (place / "out/rows.jsonl").write_text(json.dumps(row) + "\n")
    edit(rms_norm_eps=0.5)
    assert said_by() == ""
    assert (len(rows()), len(runs)) == (1, 1)


def test_a_kept_run_of_another_configuration_is_moved_aside(runs, place):
    running.compare(settings(keep_models=True))
    edit(rms_norm_eps=0.5)
    running.compare(settings(keep_models=True))
    running.compare(settings(keep_models=True, evaluate={"samples": 1}))
    assert [whole for *_, whole in runs] == [False, False, True]
    assert [row["status"] for row in rows()] == ["complete"] * 3
    assert load_model(CELL).config.rms_norm_eps == 0.5
    (aside,) = (place / "out/cells").glob("disc-lr0.0001-seed0-*")
    assert load_model(str(aside)).config.rms_norm_eps != 0.5


class Killed(BaseException):
    pass


@pytest.mark.parametrize("edited", [False, True])
def test_a_half_trained_cell_goes_on_under_its_own_configuration_alone(edited, runs, place, monkeypatch):
    save = AdaptationTrainer._save_checkpoint

    def save_and_die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationTrainer, "_save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            running.compare(settings())
    if edited:
        edit(rms_norm_eps=0.5)
    else:
        # A name that does not say its configuration.
        name = place / f"{CELL}.fingerprint"
        name.write_text(name.read_text().split()[0] + "\n")
    running.compare(settings())
    assert runs == [("disc-lr0.0001-seed0", None if edited else 1, False)]
    assert [row["status"] for row in rows()] == ["complete"]


def test_a_shared_first_stage_of_another_configuration_is_not_taken(runs, place, monkeypatch):
    samples = [{"instruction": f"Where is {n}?", "output": f"In town {n}."} for n in range(6)]
    (place / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    second = {"instructions": "general.jsonl", "chat_template": "plain", "sft_batch_size": 3}
    arm = {"method": "disc", "then": "align", "align": second}
    arms = {"once": arm, "twice": {**arm, "align": {**second, "sft_epochs": 2}}}
    # As where a process was killed before the last of its cells had ended.
    monkeypatch.setattr(running, "drop_stages", lambda output: None)
    for number in range(2):
        running.compare(settings(methods=(), arms=arms))
        assert [whole for *_, whole in runs] == [False, True] * (number + 1)
        edit(rms_norm_eps=0.5)
    assert [row["status"] for row in rows()] == ["complete"] * 4
    assert len(list((place / "out/stage1").iterdir())) == 2
