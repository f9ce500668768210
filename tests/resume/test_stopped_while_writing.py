"""A run that is stopped while the model writes goes on there, and trains the same data, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterword import TrainingError, adapt
from afterword.writing import LocalGenerator

pytestmark = pytest.mark.usefixtures("unseen")

HOW: dict[str, Any] = {"method": "continuation", "max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}


@pytest.fixture
def stops_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`stops_at(n)`: Ctrl-C before the n-th batch from now; the generator writes two texts at a time."""
    left, write = [0], LocalGenerator.write

    def counted(self: Any, requests: Any, advance: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return write(self, requests, advance)

    def in_twos(self: Any, requests: Any) -> list[list[int]]:
        return [list(range(i, min(i + 2, len(requests)))) for i in range(0, len(requests), 2)]

    monkeypatch.setattr(LocalGenerator, "write", counted)
    monkeypatch.setattr(LocalGenerator, "batches", in_twos)
    return lambda batch: left.__setitem__(0, batch)


def data_of(run: Path) -> tuple[Any, ...]:
    state, data = (json.loads((run / f"{name}.json").read_text()) for name in ("state", "data"))
    rows = [json.loads(line)["train/loss_nats"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    return state["windows_sha256"], data["prepared_by_view"], rows, (run / "model.safetensors").read_bytes()


def test_it_goes_on_there(stops_at: Any, model_folder: Path, documents: Any, tmp_path: Path) -> None:
    rows = [row for row in documents if len(row["text"]) < 140][:3]
    how = {**HOW, "continuations": 2, "new_tokens": 24}
    for name, stops in (("through", ()), ("stopped", (1, 2, 2))):
        run = {"output_dir": str(tmp_path / name), "written_folder": str(tmp_path / f"{name}-texts")}
        for batch in stops:
            stops_at(batch)
            with pytest.raises(TrainingError, match="Interrupted"):
                adapt(str(model_folder), rows, **how, **run)
        stops_at(0)
        adapt(str(model_folder), rows, **how, **run)
    assert data_of(tmp_path / "through") == data_of(tmp_path / "stopped")
