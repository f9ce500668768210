"""Real processes that die: SIGKILL, Ctrl-C, a disk that takes no more. Resumed, each ends as if nothing had happened.

The processes are forked from one that has done the slow imports (`tests/forked.py`).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forking, Started

SETTINGS = "--num-train-epochs 3 --learning-rate 1e-3 --lr-scheduler-type cosine --save-total-limit 2"
STEPS = 30
WRITING = "--method continuation --continuations 64 --new-tokens 24 --max-steps 3"
CHECKPOINT_KIB = 140
"""Of the weights. The optimizer's file, written after them, is twice that."""


@pytest.fixture
def start(forking: Forking) -> Callable[..., Started]:
    """`start(folder, "--save-steps 5")`: the run of that folder in a process of its own."""

    def go(folder: Path, more: str = "", *, file_kib: int = 0, output: str = "run") -> Started:
        method = "" if "--method" in more else "--method disc"
        words = f"afterword adapt model docs.jsonl -o {output} {SETTINGS} {method} {more}".split()
        return forking.start(folder, *words, file_kib=file_kib)

    return go


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, documents: Any) -> Path:
    """A folder with a model and documents."""
    shutil.copytree(model_folder, tmp_path / "model")
    text = "".join(json.dumps(row) + "\n" for row in documents)
    (tmp_path / "docs.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def finish(start: Any, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Resume the run to its end, and hold it against one that was never stopped."""
    through = tmp_path_factory.getbasetemp() / "never-stopped"

    def go(more: str = "", output: str = "run") -> None:
        if not through.exists():
            reference = start(place, "--save-steps 15", output=str(through))
            assert reference.wait() == 0, reference.said
        resumed = start(place, more, output=output)
        assert resumed.wait() == 0, resumed.said
        assert_same(place / output, through)

    return go


def assert_same(run: Path, reference: Path) -> None:
    """The same file of weights, and one row for every step, with the same losses."""
    assert (run / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
    assert [step for step, _ in losses(run)] == list(range(1, STEPS + 1))
    assert losses(run) == losses(reference)


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every whole row."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return [(row["step"], row["train/loss_nats"]) for row in rows]


def steps(run: Path) -> int:
    """How many steps are in metrics.jsonl."""
    return len(losses(run))


def staging(run: Path) -> list[str]:
    """Checkpoints that are just being written."""
    return [path.name for path in run.glob("checkpoint-*.partial")]


def kill_when(start: Any, place: Path, more: str, moment: Callable[[Path], Any], proof: Callable[[Path], Any]) -> None:
    """SIGKILL the run at a moment, until the folder proves that it was that moment."""
    run = place / "run"
    for _ in range(10):
        shutil.rmtree(run, ignore_errors=True)
        process = start(place, more)
        until(lambda: moment(run))
        assert process.end(signal.SIGKILL) == -signal.SIGKILL, process.said
        if proof(run):
            return
    pytest.fail("the moment was missed ten times")


def until(happened: Callable[[], Any], seconds: float = 60.0) -> None:
    """Look every half millisecond: a save takes a few, and who looks without pause takes the run's processor."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.0005)


def test_killed_inside_a_save(start: Any, place: Path, finish: Any) -> None:
    kill_when(start, place, "--save-steps 1", lambda run: steps(run) > 5 and staging(run), staging)
    assert len(list((place / "run").glob("checkpoint-*[0-9]"))) >= 1
    finish("--save-steps 1")
    assert staging(place / "run") == []


def test_killed_inside_a_step(start: Any, place: Path, finish: Any) -> None:
    def between(run: Path) -> bool:
        return (run / "checkpoint-10").exists() and not staging(run) and steps(run) % 10 in (3, 4, 5, 6)

    kill_when(start, place, "--save-steps 10", between, between)
    finish("--save-steps 10")


def test_killed_before_the_first_checkpoint(start: Any, place: Path, finish: Any) -> None:
    def early(run: Path) -> bool:
        return steps(run) >= 3 and not list(run.glob("checkpoint-*"))

    kill_when(start, place, "--save-steps 25", early, early)
    finish("--save-steps 25")


def test_killed_before_the_first_step(start: Any, place: Path, finish: Any) -> None:
    def begun(run: Path) -> bool:
        return all((run / name).exists() for name in ("config.yaml", "state.json")) and steps(run) == 0

    kill_when(start, place, "", begun, begun)
    finish()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_ended_while_documents_are_read(number: int, start: Any, place: Path, finish: Any) -> None:
    process = start(place)
    until((place / "run" / ".work").exists)
    assert process.end(number) in (-signal.SIGKILL, 130)
    assert "Traceback" not in process.said
    finish()


def test_killed_while_the_folder_is_begun(start: Any, place: Path, finish: Any) -> None:
    """Of the small files only the first had been written."""
    stop_after(start, place, "checkpoint-10")
    for path in (place / "run").iterdir():
        if path.name.startswith("checkpoint-"):
            shutil.rmtree(path)
        elif path.name not in ("state.json", ".work"):
            path.unlink()
    finish()


def test_ctrl_c_says_what_is_kept(start: Any, place: Path, finish: Any) -> None:
    process = start(place, "--save-steps 10")
    until(lambda: steps(place / "run") >= 12)
    assert process.end(signal.SIGINT) == 130
    (message,) = [line for line in process.said.splitlines() if not line.startswith("step ")]
    newest = max(place.glob("run/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert message == f"Interrupted. {newest.name} is intact; the same command resumes from it."
    finish("--save-steps 10")


def test_ctrl_c_before_the_first_checkpoint(start: Any, place: Path, finish: Any) -> None:
    process = start(place)
    until(lambda: steps(place / "run") >= 3)
    assert process.end(signal.SIGINT) == 130
    assert "Interrupted. No checkpoint had been written yet; the same command starts again." in process.said
    finish()


def assert_disk_was_full(process: Started, checkpoint: str) -> None:
    """One sentence with the setting, what is kept, and what to do."""
    assert process.wait() == 1
    (message,) = [line for line in process.said.splitlines() if not line.startswith("step ")]
    for words in ("output_dir", "is full or does not take the file", f"{checkpoint} is intact", "Free some space"):
        assert words in message


def stop_after(start: Any, place: Path, checkpoint: str) -> None:
    """A run with this checkpoint, and stopped."""
    process = start(place, "--save-steps 10")
    until(lambda: (place / "run" / checkpoint).exists())
    assert process.end(signal.SIGKILL) == -signal.SIGKILL
    process.said  # noqa: B018 - forgotten


@pytest.mark.parametrize("kib", [CHECKPOINT_KIB // 2, CHECKPOINT_KIB + 60], ids=["weights", "optimizer"])
def test_a_file_that_the_disk_does_not_take(kib: int, start: Any, place: Path, finish: Any) -> None:
    stop_after(start, place, "checkpoint-10")
    newest = sorted(path.name for path in place.glob("run/checkpoint-*") if path.suffix != ".partial")[-1]
    assert_disk_was_full(start(place, "--save-steps 10", file_kib=kib), newest)
    assert newest in [path.name for path in place.glob("run/checkpoint-*")]
    finish("--save-steps 10")


def test_no_space_even_for_the_documents(start: Any, place: Path) -> None:
    process = start(place, file_kib=1)
    assert process.wait() == 1
    said = process.said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert "Free" in said


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 1.3 MB; its size is changed by mounting it again."""
    disk = place / "disk"
    disk.mkdir()
    if not shutil.which("mount") or not mounted("-t", "tmpfs", "-o", "size=1300k", "none", str(disk)):
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def mounted(*words: str) -> bool:
    """Whether mount did it."""
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


def test_a_small_disk_that_fills_up(start: Any, place: Path, small_disk: Path, finish: Any) -> None:
    process = start(place, "--save-steps 10 --save-total-limit 9", output="disk/run")
    assert process.wait() == 1
    (message,) = [line for line in process.said.splitlines() if not line.startswith("step ")]
    for words in ("output_dir", "disk/run", "is full", "checkpoint-20 is intact", "Free some space"):
        assert words in message
    assert mounted("-o", "remount,size=20m", str(small_disk))
    finish("--save-steps 10 --save-total-limit 9", "disk/run")


def test_sigterm_saves_the_step_and_says_so(start: Any, place: Path, finish: Any) -> None:
    process = start(place)
    until(lambda: steps(place / "run") >= 3)
    assert process.end(signal.SIGTERM) == 143
    (message,) = [line for line in process.said.splitlines() if not line.startswith("step ")]
    (saved,) = place.glob("run/checkpoint-*")
    step = saved.name.removeprefix("checkpoint-")
    assert message == f"Ended by SIGTERM after step {step}. {saved.name} is saved; the same command resumes."
    finish()


def test_killed_between_the_last_checkpoint_and_the_result(start: Any, place: Path, finish: Any) -> None:
    """No step more than asked for is taken: the checkpoint is the end."""
    assert start(place, "--save-steps 15").wait() == 0
    for path in (place / "run").iterdir():
        if path.suffix == ".safetensors" or path.name in ("manifest.json", "README.md", "learned.json"):
            path.unlink()
    finish("--save-steps 15")
    assert (place / "run" / "README.md").exists()


def test_killed_before_its_card(start: Any, place: Path) -> None:
    assert start(place).wait() == 0
    for name in ("README.md", "learned.json"):
        (place / "run" / name).unlink()
    again = start(place)
    assert again.wait() == 0
    assert "nothing was trained" in again.said
    assert (place / "run" / "README.md").exists()
    assert (place / "run" / "learned.json").exists()


@pytest.mark.slow
def test_killed_while_the_model_writes(start: Any, place: Path) -> None:
    """Several times in one run: its texts, its data, its losses and its weights are those of a run without a kill."""

    def process(name: str) -> Started:
        return start(place, f"{WRITING} --written-folder {name}-texts", output=name)

    def stored(name: str) -> int:
        return sum(file.read_bytes().count(b"\n") for file in place.glob(f"{name}-texts/*.jsonl"))

    through = process("through")
    assert through.wait() == 0, through.said
    texts, before = stored("through"), 0
    for _ in range(4):
        killed = process("run")
        until(lambda been=before: stored("run") > been)
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL, killed.said
        before = stored("run")
        assert before < texts, "the moment was missed"
        assert not (place / "run" / "state.json").exists()
    resumed = process("run")
    assert resumed.wait() == 0, resumed.said
    assert what_a_run_with_texts_is(place / "run") == what_a_run_with_texts_is(place / "through")


def what_a_run_with_texts_is(run: Path) -> tuple[Any, ...]:
    state, data = (json.loads((run / f"{name}.json").read_text()) for name in ("state", "data"))
    used = {row["key"]: (row["text"], row["ended"]) for row in map(json.loads, (run / "written.jsonl").open())}
    weights = (run / "model.safetensors").read_bytes()
    return used, state["windows_sha256"], data["prepared_by_view"], losses(run), weights


def test_a_run_folder_that_goes_while_it_is_written(start: Any, place: Path) -> None:
    process = start(place, "--save-steps 1")
    until(lambda: steps(place / "run") >= 3)
    (place / "run").rename(place / "gone")
    assert process.wait() == 1
    said = process.said
    assert "Traceback" not in said
    assert "run" in said.splitlines()[-1]
