"""metrics.jsonl: a row a step under our names, whole lines only, nothing after the step that is resumed."""

import io
import json

import pytest
from rich.console import Console
from transformers import TrainerState

import afterword.progress
from afterword.training.callbacks import MetricsWriter, RichProgress, trim_metrics


def log(writer, step, logs, *, main=True, epoch=None):
    state = TrainerState(global_step=step, epoch=epoch, max_steps=9, is_world_process_zero=main)
    writer.on_log(None, state, None, logs=logs)


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_carry_the_step_the_epoch_and_names_with_units(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    log(writer, 1, {"loss": 2.5, "grad_norm": 1.0, "learning_rate": 3e-6, "epoch": 0.1}, epoch=0.1)
    log(writer, 2, {"eval_loss": 2.0, "eval_nll_nats": 3.0}, epoch=0.2)
    assert rows(writer.path) == [
        {"step": 1, "epoch": 0.1, "train/loss_nats": 2.5, "train/grad_norm": 1.0, "train/learning_rate": 3e-6},
        {"step": 2, "epoch": 0.2, "eval/loss_nats": 2.0, "eval/nll_nats": 3.0},
    ]


def test_what_has_no_name_of_ours_is_not_written(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    log(writer, 9, {"train_runtime": 3.0, "total_flos": 1.0})
    log(writer, 9, None)
    assert not writer.path.exists()


def test_only_the_first_process_writes(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    log(writer, 1, {"loss": 2.5}, main=False)
    assert not writer.path.exists()


def test_trimming_drops_later_rows_and_a_half_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = [json.dumps({"step": step, "train/loss_nats": 1.0 / step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(whole) + '\n{"step": 5, "train/lo', encoding="utf-8")
    trim_metrics(path, 3)
    assert path.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in whole[:3])
    trim_metrics(path, 3)
    assert [row["step"] for row in rows(path)] == [1, 2, 3]


@pytest.mark.parametrize("step", [5, 100])
def test_a_half_line_is_dropped_whatever_the_step(step, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 6, "tr', encoding="utf-8")
    trim_metrics(path, step)
    assert rows(path) == [{"step": 5}]


def test_trimming_to_the_start_empties_and_a_missing_file_stays_missing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    trim_metrics(path, 0)
    assert not path.exists()
    path.write_text('{"step": 1}\n', encoding="utf-8")
    trim_metrics(path, 0)
    assert path.read_text(encoding="utf-8") == ""


def test_rows_are_appended_after_trimming(tmp_path):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log(writer, step, {"loss": 1.0})
    trim_metrics(writer.path, 2)
    log(writer, 3, {"loss": 9.0})
    assert [(row["step"], row["train/loss_nats"]) for row in rows(writer.path)] == [(1, 1.0), (2, 1.0), (3, 9.0)]


def test_without_a_terminal_progress_is_plain_lines(monkeypatch):
    text, now = io.StringIO(), [0.0]
    monkeypatch.setattr(afterword.progress.time, "monotonic", lambda: now[0])
    progress = RichProgress(Console(file=text, width=200))
    progress.on_train_begin(None, TrainerState(global_step=1, max_steps=9), None)
    for step in (2, 3):
        now[0] += 10
        log(progress, step, {"loss": 0.5, "tokens_per_second": 1234.0})
    progress.stop()
    numbers = "loss 0.5 nats · 1,234 tokens/s"
    assert text.getvalue().splitlines() == [
        "step 1/9",
        f"step 2/9 · {numbers} · 1 min 10 s left",
        f"step 3/9 · done in 20 s · {numbers}",
    ]


def test_a_run_that_was_interrupted_is_not_called_done():
    text = io.StringIO()
    progress = RichProgress(Console(file=text, width=200))
    progress.on_train_begin(None, TrainerState(global_step=1, max_steps=9), None)

    def interrupted():
        try:
            raise KeyboardInterrupt
        finally:
            progress.stop()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert text.getvalue().splitlines()[-1] == "step 1/9 · stopped after 0.0 s"


def test_a_run_that_ended_before_its_first_step_shows_nothing():
    text = io.StringIO()
    RichProgress(Console(file=text)).stop()
    assert text.getvalue() == ""
