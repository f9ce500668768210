"""What is seen of a run while it runs: a row of metrics.jsonl for every step, and a progress line."""

import contextlib
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from afterword.models import replace_file
from afterword.progress import Progress
from afterword.storage.parsing import parse_json

_COUNTS = ("documents", "student_tokens", "teacher_tokens", "padding_tokens", "trained_positions", "teacher_positions")
_GROUPS = {
    "train": {"loss": "loss_nats", "grad_norm": "grad_norm", "learning_rate": "learning_rate"},
    "speed": {"tokens_per_second": "tokens_per_second"},
    "memory": {"peak_memory_gib": "peak_gib"},
    "data": {name: name for name in _COUNTS},
    "eval": {"eval_loss": "loss_nats", "eval_nll_nats": "nll_nats", "eval_seconds": "seconds"},
}
_NAMES = {theirs: f"{group}/{ours}" for group, names in _GROUPS.items() for theirs, ours in names.items()}
"""The Trainer's names → ours, which carry their units. What has no name here is not written."""


class MetricsWriter(TrainerCallback):
    """Appends every logged row to metrics.jsonl at once, so that a killed run keeps what it did."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """One JSON object a row: step, epoch, and what was measured."""
        named = {_NAMES.get(name, name): value for name, value in (logs or {}).items()}
        row = {name: value for name, value in named.items() if name in _NAMES.values() or "source/" in name}
        if state.is_world_process_zero and row:
            place = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 6)}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**place, **row}) + "\n")


class StopAtSigterm(TrainerCallback):
    """At SIGTERM, a checkpoint after the step that is running, and the end. A second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Generator[None, None, None]:
        """While the block runs; elsewhere than in the main thread nobody can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, here = signal.getsignal(signal.SIGTERM), os.getpid()

        def stop(number: int, frame: Any) -> None:
            """Once; then as before."""
            signal.signal(signal.SIGTERM, before)
            if os.getpid() != here:
                os._exit(128 + number)  # A process that was forked for reading.
            self.asked = True

        signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop, where that was asked for."""
        if self.asked:
            control.should_save = control.should_training_stop = True


def trim_metrics(path: Path, step: int) -> None:
    """Drop rows after `step`, and a half-written last line, before a run is resumed from that step."""
    if not path.exists():
        return
    # A whole row ends with a newline; what follows the last one was cut off by a kill.
    lines = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].split("\n")
    steps = {line: _step_of(line) for line in lines if line}
    if damaged := sum(found is None for found in steps.values()):
        warnings.warn(f"{path}: {damaged} damaged rows are left out (a power cut leaves such).", stacklevel=2)
    kept = [line for line in lines if (found := steps.get(line)) is not None and found <= step]
    replace_file(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> int | None:
    """The step of a row; None of what is none."""
    try:
        found = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


class RichProgress(TrainerCallback):
    """Step, loss, tokens a second and time left, as everything long is told (see `afterword.progress`)."""

    def __init__(self, console: Console, what: str = "step"):
        """`what` stands before the count of steps."""
        self.console, self.what = console, what
        self.shown: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin where the run starts or resumes."""
        self.shown = Progress(self.what, state.max_steps, done=state.global_step, console=self.console)
        self.shown.__enter__()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Move the bar, or print a line."""
        if self.shown is None or "loss" not in (logs or {}):
            return
        speed = f" · {logs['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in logs else ""
        self.shown.advance(state.global_step - self.shown.done, f"loss {logs['loss']:.4g} nats{speed}")

    def stop(self) -> None:
        """Give the terminal back, also after an interrupt, and say which end it was."""
        if self.shown is not None:
            self.shown.__exit__(*sys.exc_info())
