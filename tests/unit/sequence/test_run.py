"""A sequence is what `afterword adapt` gives by hand, to the bit; stopped, it goes on; changed, it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from afterword import adapt
from afterword.errors import CheckpointError, ConfigError
from afterword.models import load_model
from afterword.sequence import run as running
from afterword.sequence import stages as staging
from afterword.training import Interrupted
from afterword.training import trainer as training

pytestmark = pytest.mark.usefixtures("unseen")

FIXED = {"method": "finetune_kl", "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_steps": 4}
FIXED |= {"save_steps": 2}

QUIET = Console(quiet=True)


@pytest.fixture
def asked(asked: Any) -> Callable[..., Any]:
    """As the sequence is asked for, with everything about its runs fixed."""
    return lambda **more: asked(**{**FIXED, **more})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every test of this file has its folder, and the finished sequence is kept."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def tmp_path(home: Path) -> Path:
    """The same place for every test, empty: a finished sequence holds where it is."""
    shutil.rmtree(home / "here", ignore_errors=True)
    (home / "here").mkdir()
    return home / "here"


@pytest.fixture
def finished(asked: Callable[..., Any], home: Path, tmp_path: Path) -> None:
    """The sequence was taught, once for all tests that begin with it."""
    if not (home / "kept").exists():
        taught(asked())
        shutil.copytree(tmp_path / "seq", home / "kept")
    else:
        shutil.copytree(home / "kept", tmp_path / "seq")


def alike(one: Path, other: Path) -> bool:
    mine, theirs = (dict(load_model(str(folder)).named_parameters()) for folder in (one, other))
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def taught(settings: Any) -> dict[str, Any]:
    return running.teach_in_sequence(settings, console=QUIET)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of every step that was taken."""
    seen, real = list[int](), training.AdaptationTrainer.training_step

    def step(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(self.state.global_step)
        return real(self, *given, **named)

    monkeypatch.setattr(training.AdaptationTrainer, "training_step", step)
    return seen


def test_two_stages_are_two_runs_by_hand_that_are_held_to_the_first_model(
    finished: None, asked: Any, corpora: Any, model_folder: Path, tmp_path: Path
) -> None:
    summary = taught(asked())
    first = adapt(model_folder, corpora["spring"]["documents"], output_dir=tmp_path / "one", **FIXED).path
    how = {"reference": str(model_folder), "output_dir": tmp_path / "two", **FIXED}
    second = adapt(first, corpora["autumn"]["documents"], **how).path
    assert alike(first, tmp_path / "seq/stages/1-spring")
    assert alike(second, tmp_path / "seq/stages/2-autumn")
    # Held to the result of the stage before, the second would be another model.
    own = adapt(first, corpora["autumn"]["documents"], output_dir=tmp_path / "own", **FIXED).path
    assert not alike(own, second)
    assert summary["models"] == ["first", "1-spring", "2-autumn"]
    assert [stage["held_to"] for stage in summary["stages"]] == [str(model_folder)] * 2


def test_the_summary_holds_a_cell_for_every_model_and_corpus(
    finished: None, asked: Any, model_folder: Path, tmp_path: Path
) -> None:
    summary = taught(asked())
    by_name = {(each["task"], each["metric"]): each for each in summary["measures"]}
    chosen = by_name["questions/closed_book", "choice_correct_frac"]
    assert (chosen["corpora"], chosen["taught_at"], chosen["n"]) == (["spring"], [1], [2])
    losses = by_name["learning/trained", "target_nll_nats"]
    assert losses["corpora"] == ["spring", "autumn"]
    assert [len(row) for row in losses["cells"]] == [2, 2, 2]
    # What the first model makes of a corpus is what `evaluate` says of it, whatever was taught since.
    from afterword.evaluation import evaluate

    alone = evaluate(model_folder, documents=[str(tmp_path / "autumn.jsonl")], samples=0).scores
    here = next(score.after.value for score in alone if score.metric == "target_nll_nats")
    assert losses["cells"][0][1]["value"] == pytest.approx(here)
    forward = losses["forward"][1]["value"]
    assert forward == pytest.approx(losses["cells"][0][1]["value"] - losses["cells"][1][1]["value"])
    backward = losses["backward"][0]["value"]
    assert backward == pytest.approx(losses["cells"][1][0]["value"] - losses["cells"][2][0]["value"])
    drift = next(each for each in summary["retention"] if each["metric"] == "kl_nats")
    assert [stage["after"]["value"] > 0 for stage in drift["stages"]] == [True, True]


def test_a_sequence_that_is_stopped_goes_on_where_it_was(
    finished: None, asked: Any, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real = tmp_path / "whole", training.AdaptationTrainer.training_step
    (tmp_path / "seq").rename(whole)
    steps.clear()

    def dies(self: Any, *given: Any, **named: Any) -> Any:
        # The third step of the second stage: six have been taken before it.
        if len(steps) == 6:
            raise KeyboardInterrupt
        return real(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training.AdaptationTrainer, "training_step", dies)
        with pytest.raises(Interrupted):
            taught(asked())
    assert steps == [0, 1, 2, 3, 0, 1]
    taught(asked())
    # Neither the first stage nor the two steps before the checkpoint again.
    assert steps == [0, 1, 2, 3, 0, 1, 2, 3]
    assert alike(tmp_path / "seq/stages/2-autumn", whole / "stages/2-autumn")
    before, after = (json.loads((place / "sequence.json").read_text()) for place in (whole, tmp_path / "seq"))
    assert after["measures"] == before["measures"]
    assert after["retention"] == before["retention"]
    taught(asked())
    assert len(steps) == 8, "what is done is done"


def test_what_is_done_is_not_measured_again(asked: Any, corpora: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"spring": corpora["spring"]}
    taught(asked(corpora=first))
    loaded, real = list[str](), running.measure

    def counted(model: str, file: Path, on: Any, say: Any, *, adapted: bool) -> Any:
        return real(model, file, on, lambda what: loaded.append(f"{Path(file).stem} {what}"), adapted=adapted)

    monkeypatch.setattr(running, "measure", counted)
    taught(asked(corpora=first))
    assert loaded == []
    # A corpus behind the others is taught, and measured on the models before it.
    summary = taught(asked())
    assert summary["models"] == ["first", "1-spring", "2-autumn"]
    assert loaded == [
        "first measures autumn",
        "1-spring measures autumn",
        "2-autumn measures spring",
        "2-autumn measures autumn",
        "2-autumn measures what was lost",
    ]


def test_what_was_changed_is_refused_before_a_model_is_loaded(
    finished: None, asked: Any, corpora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("load_model", "load_adapted"):
        monkeypatch.setattr(f"afterword.models.{name}", lambda *_, **__: pytest.fail("a model was loaded"))

    def refused(**more: Any) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as error:
            taught(asked(**more))
        return error.value.problems

    assert "learning_rate: 0.001 in the run, 0.002 now." in " ".join(refused(learning_rate=2e-3))
    assert refused(corpora={"autumn": corpora["autumn"], "spring": corpora["spring"]})[0].startswith("output_dir: ")
    assert "holds a sequence of other corpora (1-spring, 2-autumn)" in refused(corpora={"spring": corpora["spring"]})[0]
    (tmp_path / "spring.jsonl").write_text('{"text": "Another town. It has a mayor."}\n')
    (tmp_path / "autumn.jsonl").write_text('{"text": "Another town. It has a mayor."}\n')
    problems = refused()
    assert [problem.split(":")[0] for problem in problems] == ["corpora.spring.documents", "corpora.autumn.documents"]


def test_every_problem_is_told_at_once_and_nothing_is_left(asked: Any, corpora: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{\n")
    missing = {"documents": str(tmp_path / "nowhere.jsonl")}
    broken = {**corpora["autumn"], "questions": str(tmp_path / "broken.jsonl")}
    with pytest.raises(ConfigError) as refused:
        taught(asked(corpora={"a": missing, "b": broken, "c": {**corpora["autumn"], "questions": "none.jsonl"}}))
    assert [problem.split(":")[0] for problem in refused.value.problems] == [f"corpora.{name}" for name in "abc"]
    assert not (tmp_path / "seq").exists()


def test_a_reference_that_is_nowhere_is_told_before_anything_is_read(asked: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reference: 'nowhere' is no folder here"):
        taught(asked(reference="nowhere"))
    assert not (tmp_path / "seq").exists()


def test_a_stage_whose_beginning_is_gone_is_not_trained_anew(finished: None, asked: Any, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "seq/stages/1-spring")
    with pytest.raises(CheckpointError, match="whose result it began with, is not whole"):
        taught(asked())


def test_an_adapter_is_merged_and_the_next_one_is_held_to_the_first_model(asked: Any, tmp_path: Path) -> None:
    summary = taught(asked(use_peft=True, lora_dropout=0.0))
    first, second = staging.stages_of(asked(use_peft=True))
    assert second.settings.model_name_or_path == str(first.folder / "merged")
    assert summary["models"][-1] == "2-autumn"
    assert (second.folder / "merged/model.safetensors").is_file()
