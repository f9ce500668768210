"""A run that is stopped while its student writes anew goes on there, and comes to the same, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterword import TrainingError, adapt
from afterword.training import rollouts
from afterword.training.rollouts import ROLLOUTS

pytestmark = pytest.mark.usefixtures("unseen")

HOW: dict[str, Any] = {"method": "on_policy", "refresh_steps": 2, "own_questions": 2, "new_tokens": 12}
HOW |= {"max_steps": 6, "save_steps": 3, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}


@pytest.fixture
def stops_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`stops_in(n)`: Ctrl-C in the n-th writing from now, before it is on the disk; 0: in none."""
    left, write = [0], rollouts._written

    def stopped(*given: Any) -> Any:
        found = write(*given)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(rollouts, "_written", stopped)
    return lambda time: left.__setitem__(0, time)


def result_of(run: Path) -> tuple[Any, ...]:
    rows = [json.loads(line)["train/loss_nats"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    texts = {path.name: path.read_text() for path in (run / ROLLOUTS).iterdir()}
    return rows, texts, (run / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("scripted")
def test_it_goes_on_there(stops_in: Any, model_folder: Path, documents: Any, tmp_path: Path) -> None:
    rows = [row for row in documents if len(row["text"]) < 140][:3]
    # Before block 1, when there is no checkpoint; before block 2; and there once more.
    for name, stops in (("through", ()), ("stopped", (1, 2, 1))):
        for time in stops:
            stops_in(time)
            with pytest.raises(TrainingError, match="Interrupted"):
                adapt(str(model_folder), rows, output_dir=str(tmp_path / name), **HOW)
        stops_in(0)
        adapt(str(model_folder), rows, output_dir=str(tmp_path / name), **HOW)
    assert len(result_of(tmp_path / "through")[1]) == 2
    assert result_of(tmp_path / "through") == result_of(tmp_path / "stopped")
