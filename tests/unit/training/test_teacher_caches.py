"""A run reads its teacher once: what is cached, when it is used again, and what a run says that cannot use it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from afterword import TrainingError, adapt
from afterword.data.batching import build_batch, to_device
from afterword.data.views import scored_text
from afterword.errors import CheckpointError, ConfigError
from afterword.models import AdapterOff, FrozenCopy, Offloaded, frozen_copy, teachers
from afterword.settings.adapt import read_settings
from afterword.training import run as adapting
from afterword.training import run_adaptation
from afterword.training import teacher_caches as caching
from afterword.training.callbacks import RichProgress
from afterword.training.dry_run import dry_run
from afterword.training.steps import WORK_FOLDER

pytestmark = pytest.mark.usefixtures("unseen")

SETTINGS: dict[str, Any] = {
    "method": "disc",
    "num_train_epochs": 2,
    "save_steps": 3,
    "save_total_limit": 9,
    "learning_rate": 1e-3,
    # Nothing is left to choose, so nothing is measured for a budget.
    "lr_scheduler_type": "linear",
}
IN_ONE_STEP = {"documents_per_step": 6, "num_train_epochs": 1}
"""Every document is read, and the least is trained: for what a cache is asked after that."""
Run = Callable[..., Any]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each forward of a teacher read."""
    counts: list[int] = []
    for kind in (FrozenCopy, AdapterOff):
        real = kind.trained_states

        def spied(self: Any, *views: Any, real: Any = real) -> Any:
            counts.append(sum(int((view.position_ids == 0).sum()) for view in views))
            return real(self, *views)

        monkeypatch.setattr(kind, "trained_states", spied)
    return counts


@pytest.fixture
def run(model_folder: Path, documents: Any, general_rows: Any, tmp_path: Path, monkeypatch: Any) -> Run:
    """`run(name, stop_at=5, said=console)`: a run of six documents, twelve steps, with a cached teacher."""
    general = tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps(row) + "\n" for row in general_rows))

    def go(name: str, *, stop_at: int = 0, mixed: float = 0.0, rows: Any = None, **changes: Any) -> Any:
        class Progress(RichProgress):
            def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                if state.global_step + 1 == stop_at:
                    raise KeyboardInterrupt

        monkeypatch.setattr(adapting, "RichProgress", Progress)
        mixture = {"mixture": {"general": {"files": str(general), "tokens": mixed}}} if mixed else {}
        given = {"teacher": "cached", **SETTINGS, **mixture, **changes}
        return adapt(str(model_folder), rows or documents[:6], output_dir=tmp_path / name, **given)

    return go


def losses(run: Any) -> list[float]:
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss_nats"] for row in rows if "train/loss_nats" in row]


def weights(run: Any) -> str:
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("changes", [{}, {"use_peft": True, "lora_dropout": 0.0}], ids=["full", "lora"])
def test_the_teacher_reads_every_document_once(run: Run, read: list[int], changes: Any) -> None:
    changes = {**changes, "lr_scheduler_type": None}
    cached = run("cached", **changes)
    assert sum(read) == 6
    # Without it, in every step; a document may be split over micro-batches.
    read.clear()
    live = run("live", teacher=None, **changes)
    assert sum(read) >= 12
    assert losses(cached) == pytest.approx(losses(live), rel=1e-4)
    assert len(losses(cached)) == 12


def test_nothing_is_left_of_it_in_a_finished_run_and_no_model_while_it_trains(run: Run, monkeypatch: Any) -> None:
    found = []
    real = adapting.finish

    def finish(trainer: Any, *given: Any) -> Any:
        found.append(trainer.teacher)
        return real(trainer, *given)

    monkeypatch.setattr(adapting, "finish", finish)
    done = run("run")
    assert isinstance(found[0], teachers.HeadOnly)
    assert not (done.path / WORK_FOLDER).exists()
    rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    assert {row["data/teacher_tokens"] for row in rows} == {0}
    assert all(row["data/teacher_positions"] == row["data/trained_positions"] for row in rows)


def test_a_resumed_run_finds_its_cache_and_ends_with_the_same_weights(run: Run, read: list[int]) -> None:
    through = run("through")
    with pytest.raises(TrainingError, match="checkpoint-6 is intact"):
        run("stopped", stop_at=8)
    read.clear()
    resumed = run("stopped")
    assert (resumed.resumed_from, read) == (6, [])
    assert weights(resumed) == weights(through)
    assert losses(resumed) == losses(through)


def test_a_resumed_run_may_have_its_teacher_elsewhere(run: Run) -> None:
    with pytest.raises(TrainingError):
        run("run", stop_at=8)
    assert run("run", teacher="copy").resumed_from == 6


@pytest.mark.parametrize("changes", [{"seed": 5}, {"learning_rate": 1e-5}, {"targets": 2}, {"strategy": "all"}])
def test_other_draws_and_rates_read_nothing_again(run: Run, read: list[int], tmp_path: Path, changes: Any) -> None:
    place = {"teacher_cache": str(tmp_path / "cache")}
    how = {"documents_per_step": 3, **place}
    run("first", **how)
    read.clear()
    run("second", **changes, **how)
    assert read == []


def test_a_run_of_more_documents_than_were_read_continues_the_cache(run: Run, read: list[int], tmp_path: Path) -> None:
    place = {"teacher_cache": str(tmp_path / "cache")}
    run("first", max_steps=2, **place)
    assert sum(read) == 2
    run("second", **place)
    assert sum(read) == 6


def test_general_text_is_read_as_far_as_a_run_gets(run: Run, read: list[int]) -> None:
    run("run", method="mixcpt", mixed=0.1, num_train_epochs=1)
    assert 6 < sum(read) < 13


def test_only_what_a_teacher_is_asked_about_is_read(run: Run, read: list[int]) -> None:
    run("run", method="mol", mixed=0.1, num_train_epochs=1)
    assert 0 < sum(read) < 7
    read.clear()
    # And nothing where nothing is distilled.
    run("plain", method="finetune")
    assert read == []


@pytest.mark.parametrize("where", [None, "cache"], ids=["in the run folder", "elsewhere"])
def test_a_cache_that_was_being_written_is_continued(
    where: str | None, run: Run, read: list[int], monkeypatch: Any, tmp_path: Path
) -> None:
    place = {"teacher_cache": str(tmp_path / where) if where else None, "micro_batch_tokens": 256}
    place["documents_per_step"] = 2
    monkeypatch.setattr(caching, "SHARD_MIB", 1e-6)
    real, written = caching.TeacherCache.with_shard, []

    def killed_at_the_second(self: Any, *given: Any) -> Any:
        written.append(1)
        if len(written) == 2:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(caching.TeacherCache, "with_shard", killed_at_the_second)
        with pytest.raises(TrainingError, match="Interrupted"):
            run("run", **place)
    index = (tmp_path / (where or "run/.work/teacher") / "index.json").read_text()
    there = sum(len(shard["texts"]) for shard in json.loads(index)["shards"])
    assert 0 < there < 6
    read.clear()
    continued = run("run", **place)
    assert sum(read) == 6 - there
    assert losses(continued) == pytest.approx(losses(run("other", **{**place, "teacher_cache": None})), rel=1e-5)


def test_it_is_said_what_is_read_and_what_was_there(run: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"text": f"This is note {i}. It is short. It ends."}) + "\n" for i in range(4))
    )
    raw = {"model_name_or_path": str(model_folder), "documents": [str(tmp_path / "docs.jsonl")], "teacher": "cached"}
    raw |= {"teacher_cache": str(tmp_path / "cache"), "method": "disc", "learning_rate": 1e-4}
    said = []
    for name, most in (("a", 1), ("b", None), ("c", None)):
        settings = read_settings({**raw, "output_dir": str(tmp_path / name), "max_steps": most})
        console = Console(file=io.StringIO(), width=200)
        run_adaptation(settings, console=console)
        said.append(console.file.getvalue())
    assert "teacher: reads 1 windows of documents once\n" in said[0]
    assert "teacher: reads 3 windows of documents once, continued: 1 were there\n" in said[1]
    assert "teacher:" not in said[2]


def test_a_cache_of_another_model_is_refused(
    run: Run, build_model: Any, tokenizer: Any, documents: Any, tmp_path: Path
) -> None:
    place = {"teacher_cache": str(tmp_path / "cache"), **IN_ONE_STEP}
    run("first", **place)
    build_model("llama", seed=9).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    given = {"output_dir": tmp_path / "second", "teacher": "cached", **SETTINGS, **IN_ONE_STEP}
    with pytest.raises(CheckpointError, match=r"by or of another model\. Give another folder"):
        adapt(str(tmp_path / "other"), documents[:6], **{**given, **place})
    # A run that could not begin leaves nothing.
    assert not (tmp_path / "second").exists()
    adapt(str(tmp_path / "other"), documents[:6], **given)


def changed_model(folder: Path, to: Path, **config: Any) -> Path:
    """A copy of a model with other settings in its config.json; without any, with one other value in its head."""
    shutil.copytree(folder, to)
    if config:
        told = json.loads((to / "config.json").read_text())
        (to / "config.json").write_text(json.dumps({**told, **config}))
        return to
    weights = load_file(to / "model.safetensors")
    # Of 9,600 values, where a sample of 4,096 does not look.
    weights["lm_head.weight"][0, 1] += 1
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, r"another model configuration \(config"),
        ({"rms_norm_eps": 0.1}, r"another model configuration \(config"),
        ({}, r"another model\."),
    ],
    ids=["rope_theta", "rms_norm_eps", "a weight"],
)
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_cache_of_a_model_that_was_edited_is_not_used(
    config: Any, said: str, adapter: bool, run: Run, read: list[int], model_folder: Path, documents: Any, tmp_path: Path
) -> None:
    cache, rows = {"teacher_cache": str(tmp_path / "cache"), "use_peft": adapter, **IN_ONE_STEP}, documents[:6]
    run("first", **cache)
    other = str(changed_model(model_folder, tmp_path / "other", **config))
    with pytest.raises(CheckpointError, match=f"holds what was said by or of {said}"):
        adapt(other, rows, output_dir=tmp_path / "second", teacher="cached", **{**SETTINGS, **cache})
    # Where caches are named after what they hold, it has one of its own.
    for number, model in enumerate((str(model_folder), other, str(model_folder))):
        raw = {**SETTINGS, **IN_ONE_STEP, "model_name_or_path": model, "teacher": "cached", "use_peft": adapter}
        read.clear()
        settings = read_settings({**raw, "output_dir": str(tmp_path / f"shared-{number}")})
        run_adaptation(settings, rows, teacher_caches=tmp_path / "shared", console=Console(quiet=True))
        assert sum(read) == (6 if number < 2 else 0)
    assert len(list((tmp_path / "shared").glob("*/index.json"))) == 2


def test_a_cache_of_another_precision_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    place = {"teacher_cache": str(tmp_path / "cache"), **IN_ONE_STEP}
    run("first", **place)
    with pytest.raises(CheckpointError, match=r"teacher_cache: .*another precision"):
        run("second", **place, precision="bf16", use_peft=True)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(("changes", "new"), [({"rows": slice(1, 7)}, 1), ({"bos": "never"}, 6)], ids=str)
def test_a_cache_of_other_texts_is_continued(
    changes: Any, new: int, run: Run, read: list[int], documents: Any, tmp_path: Path
) -> None:
    changes = {name: documents[value] if name == "rows" else value for name, value in changes.items()}
    place = {"teacher_cache": str(tmp_path / "cache")}
    run("first", **place, **IN_ONE_STEP)
    read.clear()
    changes["documents_per_step"] = 3
    again = run("second", **place, **changes)
    assert sum(read) == new
    assert losses(again) == pytest.approx(losses(run("live", teacher=None, **changes)), rel=1e-4)


def test_a_truncated_shard_is_refused(run: Run, tmp_path: Path) -> None:
    place = {"teacher_cache": str(tmp_path / "cache"), **IN_ONE_STEP}
    run("first", **place)
    shard = tmp_path / "cache/00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"00000\.safetensors is missing or not as it was written"):
        run("second", **place)


def test_evaluation_documents_are_cached_too(run: Run, read: list[int], documents: Any, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps(row) + "\n" for row in documents[6:]))
    done = run("run", eval_documents=[str(held)], eval_steps=4)
    assert sum(read) == 6 + 4
    rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    live = run("live", teacher=None, eval_documents=[str(held)], eval_steps=4)
    expected = [json.loads(line) for line in (live.path / "metrics.jsonl").read_text().splitlines()]
    found = [row["eval/loss_nats"] for row in rows if "eval/loss_nats" in row]
    assert found == pytest.approx([r["eval/loss_nats"] for r in expected if "eval/loss_nats" in r], rel=1e-4)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "adapter_off"}, "teacher: 'adapter_off' needs an adapter"),
        ({"teacher": None, "teacher_cache": "x"}, "teacher_cache: is read where teacher is cached, not None"),
        ({"teacher_precision": "int8"}, "teacher_precision: int8 makes a copy in memory smaller, and teacher: cached"),
        ({"teacher": "elsewhere"}, "teacher: should be 'copy', 'adapter_off', 'offload' or 'cached'"),
    ],
)
def test_what_cannot_work_is_refused(run: Run, tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("run", **changes)
    assert not (tmp_path / "run").exists()


def test_every_problem_of_the_teacher_is_told_at_once(run: Run) -> None:
    with pytest.raises(ConfigError) as caught:
        run("run", teacher="adapter_off", teacher_cache="x")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["teacher", "teacher_cache"]


def test_a_copy_teaches_an_adapter_as_its_base_does(run: Run) -> None:
    lora = {"use_peft": True, "lora_dropout": 0.0, "documents_per_step": 3}
    expected = losses(run("off", teacher="adapter_off", **lora))
    assert losses(run("copy", teacher="copy", **lora)) == pytest.approx(expected, rel=1e-4)


def test_offload_is_a_copy_where_there_is_no_gpu_and_says_so(run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="teacher: offload spares the memory of a GPU, and this machine has none"):
        offloaded = run("offload", teacher="offload")
    assert losses(offloaded) == losses(run("copy", teacher="copy"))


def test_an_offloaded_teacher_goes_home_also_from_an_error(build_model: Any, monkeypatch: Any) -> None:
    model = build_model("gemma3")
    view = build_batch([scored_text(i, np.arange(*ids), 1) for i, ids in enumerate([(5, 20), (30, 39)])]).student
    expected = frozen_copy(model)
    teacher = Offloaded(copy.deepcopy(model).requires_grad_(False), expected.head()).placed(torch.device("cpu"))
    torch.testing.assert_close(teacher.trained_states(view), expected.trained_states(view))
    tensors = [*teacher.model.parameters(), *teacher.model.buffers()]
    home = [tensor.data_ptr() for tensor in tensors]
    # A device that is no other would not tell.
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self.clone())
    with contextlib.suppress(ZeroDivisionError), teacher.on(torch.device("cpu")):
        assert not set(home) & {tensor.data_ptr() for tensor in tensors}
        raise ZeroDivisionError
    assert [tensor.data_ptr() for tensor in tensors] == home


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_offloaded_teacher_is_on_the_gpu_only_while_it_reads(build_model: Any) -> None:
    model, device = build_model("llama"), torch.device("cuda")
    expected = frozen_copy(model).placed(device)
    teacher = teachers.offloaded(copy.deepcopy(model)).placed(device)
    view = to_device(build_batch([scored_text(0, np.arange(5, 20), 1)]).student, device)
    torch.testing.assert_close(teacher.trained_states(view), expected.trained_states(view))
    assert {parameter.device.type for parameter in teacher.model.parameters()} == {"cpu"}
    assert teacher.head().weight.device.type == "cuda"


def test_the_dry_run_says_what_the_cache_takes(model_folder: Path, documents: Any, tokenizer: Any) -> None:
    raw = {"model_name_or_path": str(model_folder), "teacher": "cached", "method": "disc"}
    plan = dry_run(read_settings({**raw, "num_train_epochs": 3}), documents)
    rows = sum(1 + len(tokenizer(row["text"], add_special_tokens=False).input_ids) for row in documents)
    # Hidden size 32.
    assert plan.cache == rows * 4 * 32
    assert plan.memory.teacher == 300 * 32 * 4
    assert dry_run(read_settings({**raw, "teacher": None}), documents).cache is None


def test_the_dry_run_prints_it(afterword: Any, model_folder: Path, documents: Any, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    words = ("adapt", str(model_folder), str(tmp_path / "docs.jsonl"), "-o", str(tmp_path / "run"), "--dry-run")
    words += ("--method", "disc")
    assert "teacher cache  0.00 GiB on the disk\n" in afterword(*words, "--teacher", "cached").out
    assert "teacher cache" not in afterword(*words).out
