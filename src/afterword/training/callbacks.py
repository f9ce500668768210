"""What is seen of a run while it runs: a row of metrics.jsonl for every step, and a progress line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

_NAMES = {
    "loss": "train/loss_nats",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "tokens_per_second": "speed/tokens_per_second",
    "peak_memory_gib": "memory/peak_gib",
    "documents": "data/documents",
    "student_tokens": "data/student_tokens",
    "teacher_tokens": "data/teacher_tokens",
    "eval_loss": "eval/loss_nats",
    "eval_nll_nats": "eval/nll_nats",
    "eval_seconds": "eval/seconds",
}
"""The Trainer's names → ours, which carry their units. What has no name here is not written."""


class MetricsWriter(TrainerCallback):
    """Appends every logged row to metrics.jsonl at once, so that a killed run keeps what it did."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """One JSON object a row: step, epoch, and what was measured."""
        row = {_NAMES[name]: value for name, value in (logs or {}).items() if name in _NAMES}
        if not state.is_world_process_zero or not row:
            return
        epoch = round(state.epoch or 0.0, 6)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, "epoch": epoch, **row}) + "\n")


def trim_metrics(path: Path, step: int) -> None:
    """Drop rows after `step`, and a half-written last line, before a run is resumed from that step."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] <= step:
            kept.append(line)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


class RichProgress(TrainerCallback):
    """Step, loss, tokens a second and time left; a plain line now and then where there is no terminal."""

    def __init__(self, console: Console, seconds_between_lines: float = 15.0):
        self.console = console
        self.seconds_between_lines = seconds_between_lines
        self.progress: Progress | None = None
        self.task: Any = None
        self.last_line = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the bar where the run starts or resumes."""
        if not state.is_world_process_zero or not self.console.is_terminal:
            return
        columns: list[ProgressColumn] = [
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(*columns, console=self.console)
        self.progress.start()
        self.task = self.progress.add_task("", total=state.max_steps, completed=state.global_step, numbers="")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Update the bar, or print a line."""
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        assert logs is not None
        numbers = f"loss {logs['loss']:.4g} nats · {logs.get('tokens_per_second', 0):,.0f} tokens/s"
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step, numbers=numbers)
        elif time.monotonic() - self.last_line > self.seconds_between_lines:
            self.last_line = time.monotonic()
            self.console.print(f"step {state.global_step}/{state.max_steps} · {numbers}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the finished bar standing."""
        self.stop()

    def stop(self) -> None:
        """Give the terminal back, also after an interrupt."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
