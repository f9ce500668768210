"""A stopped run, resumed, is the run that was never stopped: same weights, bit for bit, and one row per step."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterword import METHODS, TrainingError, adapt
from afterword.settings.adapt import read_settings

pytestmark = pytest.mark.usefixtures("scripted")

# Twelve steps in two epochs of six; a schedule that moves and a rate that shows in every weight.
SETTINGS: dict[str, Any] = {
    "method": "disc",
    "num_train_epochs": 2,
    "save_steps": 3,
    "save_total_limit": 9,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
}
STEPS = 12
# Of every kind fewer: eight, of which two are of the second epoch, with checkpoints at 2, 4 and 6.
SHORT = {"max_steps": 8, "save_steps": 2}
LORA = {"use_peft": True, "lora_dropout": 0.2, "lora_r": 4}
# What an adapter keeps and draws is no matter of a method: one of every kind of loss, and of those that write anew.
ADAPTED = {(type(m.objective), bool(m.view.rewriting)): name for name, m in reversed(METHODS.items())}
KINDS = {name: {"method": name} for name in METHODS}
KINDS |= {f"{name}-lora": {"method": name, **LORA} for name in ADAPTED.values()}
# Resumed after steps 2 and 6: each inside a block of steps that the student has written for.
KINDS = {
    kind: {**how, "refresh_steps": 4} if METHODS[how["method"]].view.rewriting else how for kind, how in KINDS.items()
}
# Both are between averagings, and the penalty pulls toward the start of the first part.
KINDS |= {"followed": {**KINDS["on_policy"], "teacher_average": 0.2}}
KINDS |= {"staying": {"method": "disc", "ema": 0.9, "ema_steps": 4, "l2sp": 0.1}}
KINDS = {kind: {**how, **SHORT} for kind, how in KINDS.items()}
SAME = ("step", "epoch", "train/loss_nats", "train/grad_norm", "train/learning_rate", "data/documents")

Run = Callable[..., Any]


@pytest.fixture
def run(
    model_folder: Path, documents: Any, general_rows: Any, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """`run(folder, at={5: stop})`: adapt the tiny model, and do something at the beginning of some steps.

    Only with `looks` what it changed is looked at in the end.
    """
    from afterword.training import run as adapting
    from afterword.training.callbacks import RichProgress

    general = tmp_path_factory.mktemp("general") / "general.jsonl"
    general.write_text("".join(json.dumps(row) + "\n" for row in general_rows))
    mixture = {"mixture": {"general": {"files": str(general), "tokens": 0.4}}}

    def go(
        folder: Path, at: dict[int, Callable[[Any], None]] | None = None, *, looks: bool = False, **changes: Any
    ) -> Any:
        class Progress(RichProgress):
            def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                if act := (at or {}).get(state.global_step + 1):
                    act(more["model"])

        monkeypatch.setattr(adapting, "RichProgress", Progress)
        mixed = mixture if METHODS[changes.get("method", "disc")].takes_general_text else {}
        given = {**SETTINGS, **mixed, **changes, "output_dir": str(folder)}
        if looks:
            return adapt(str(model_folder), documents[:6], **given)
        return adapting.run_adaptation(read_settings({**given, "model_name_or_path": str(model_folder)}), documents[:6])

    return go


def stop(model: Any) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


def break_weight(model: Any) -> None:
    """One infinite weight in the last layer."""
    model.model.layers[1].mlp.down_proj.weight.data[2, 3] = float("inf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Path]:
    """The folder of a run of all twelve steps that was not interrupted, made once."""
    folder = tmp_path_factory.mktemp("whole") / "run"

    def make(run: Run) -> Path:
        if not folder.exists():
            run(folder, looks=True)
        return folder

    return make


@pytest.fixture
def stopped(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, run: Run) -> Path:
    """A DiSC run that was stopped in step 8, with the checkpoints of steps 3 and 6."""
    kept = tmp_path_factory.getbasetemp() / "stopped"
    if not kept.exists():
        with pytest.raises(TrainingError, match="checkpoint-6 is intact"):
            run(kept, at={8: stop})
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def weights(run: Path) -> dict[str, Any]:
    """Every tensor of the result."""
    from safetensors.torch import load_file

    (file,) = run.glob("*.safetensors")
    return load_file(file)


def assert_same(run: Path, reference: Path) -> None:
    """Weights bit for bit, and the same rows of the same steps."""
    ours, theirs = weights(run), weights(reference)
    assert ours.keys() == theirs.keys()
    different = [name for name in theirs if ours[name].numpy().tobytes() != theirs[name].numpy().tobytes()]
    assert different == []
    rows = metrics(run)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows == metrics(reference)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what the clock decides."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in SAME} for row in rows]


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder: its content, and when it was written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_twice_ends_with_the_same_weights(kind: str, run: Run, tmp_path: Path) -> None:
    how = KINDS[kind]
    run(tmp_path / "through", **how)
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"Interrupted\. checkpoint-2 is intact; the same command resumes"):
        run(folder, at={4: stop}, **how)
    with pytest.raises(TrainingError, match=r"Interrupted\. checkpoint-6 is intact; the same command resumes"):
        run(folder, at={8: stop}, **how)
    assert run(folder, **how).resumed_from == 6
    assert_same(folder, tmp_path / "through")
    assert len(metrics(folder)) == SHORT["max_steps"]


def test_the_runs_that_are_compared_do_learn(run: Run, whole: Any, model_folder: Path) -> None:
    from safetensors.torch import load_file

    before, after = load_file(model_folder / "model.safetensors"), weights(whole(run))
    assert all((before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize("kind", ["accumulated", "several-documents", "tokens", "workers"])
def test_also_with_steps_of_another_shape(kind: str, run: Run, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "accumulated": {"documents_per_step": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 6},
        "several-documents": {"documents_per_step": 2, "num_train_epochs": 4, "micro_batch_tokens": 256},
        "tokens": {"step_tokens": 80, "max_steps": STEPS},
        "workers": {"dataloader_num_workers": 1},
    }[kind]
    run(tmp_path / "through", **changes)
    with pytest.raises(TrainingError):
        run(tmp_path / "run", at={8: stop}, **changes)
    run(tmp_path / "run", **changes)
    assert_same(tmp_path / "run", tmp_path / "through")


def remove(name: str) -> Callable[[Path], None]:
    """This file of a checkpoint is gone."""
    return lambda checkpoint: (checkpoint / name).unlink()


def change_a_byte(checkpoint: Path) -> None:
    """One bit of one weight has flipped; every size is right."""
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "no-optimizer": remove("optimizer.pt"),
    "no-manifest": remove("manifest.json"),
    "no-state": remove("trainer_state.json"),
    "byte": change_a_byte,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_never_resumed_from(
    damage: str, run: Run, whole: Any, stopped: Path, model_folder: Path
) -> None:
    DAMAGES[damage](stopped / "checkpoint-6")
    assert run(stopped).resumed_from == 3
    assert_same(stopped, whole(run))


def test_without_a_whole_checkpoint_the_run_starts_again(run: Run, whole: Any, stopped: Path) -> None:
    for checkpoint in stopped.glob("checkpoint-*"):
        (checkpoint / "manifest.json").unlink()
    assert run(stopped).resumed_from is None
    assert_same(stopped, whole(run))


def test_half_a_metrics_row_is_cut_off(run: Run, whole: Any, stopped: Path) -> None:
    with (stopped / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "epo')
    run(stopped)
    assert_same(stopped, whole(run))


def test_a_run_that_died_while_its_result_was_written(run: Run, whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole(run), folder)
    (folder / "result.partial").mkdir()
    for name in ("manifest.json", "model.safetensors"):
        (folder / name).rename(folder / "result.partial" / name)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").write_text(json.dumps({**state, "status": "running"}), encoding="utf-8")
    assert run(folder, looks=True).resumed_from == STEPS
    assert_same(folder, whole(run))
    assert not (folder / "result.partial").exists()


def test_a_finished_run_is_left_as_it_is(run: Run, whole: Any) -> None:
    folder = whole(run)
    before = tree(folder)
    result = run(folder, looks=True)
    assert result.already_complete
    assert result.steps == STEPS
    after = {name: entry for name, entry in tree(folder).items() if "/.work/" not in name}
    assert after == before


def test_a_finished_run_gets_no_new_files(run: Run, whole: Any, tmp_path: Path) -> None:
    shutil.copytree(whole(run), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / ".work", ignore_errors=True)
    before = tree(tmp_path / "run")
    run(tmp_path / "run", looks=True)
    assert tree(tmp_path / "run") == before


def test_an_infinite_weight_stops_before_the_optimizer_step(run: Run, whole: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(TrainingError) as stopped:
        run(folder, at={5: break_weight})
    for words in ("not finite at step 5", "doc-", "Stopped before the optimizer step", "Lower learning_rate"):
        assert words in str(stopped.value)
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]
    assert run(folder).resumed_from == 3
    assert_same(folder, whole(run))


@pytest.mark.parametrize("method", METHODS)
def test_a_rate_that_destroys_the_model_is_stopped(method: str, run: Run, tmp_path: Path) -> None:
    wild = {"method": method, "learning_rate": 1e30, "save_steps": 1, "warmup_steps": 0}
    with pytest.raises(TrainingError, match=r"not finite at step \d+, with the documents doc-\d.*Lower learning_rate"):
        run(tmp_path / "run", **wild)
    from safetensors.torch import load_file

    saved = sorted((tmp_path / "run").glob("checkpoint-*/model.safetensors"))
    assert saved
    assert all(tensor.isfinite().all() for file in saved for tensor in load_file(file).values())
