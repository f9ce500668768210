"""A compiled model trains as the plain one does, and is not compiled anew for every step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from afterword import adapt

# The graphs are run as they were captured: what a compiler makes of them is not ours to test.
COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("method", "extra"), [("disc", {}), ("mixcpt", {"use_peft": True, "lora_dropout": 0.0})])
def test_compiled_trains_as_plain(
    method: str, extra: Any, build_model: Any, tokenizer: Any, documents: Any, tmp_path: Path
) -> None:
    # Every layer is traced on its own: one is enough.
    build_model(num_hidden_layers=1).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    def losses(name: str, **trainer: Any) -> list[float]:
        how = {"method": method, "learning_rate": 1e-2, "lr_scheduler_type": "linear", "max_steps": 4, **extra}
        run = adapt(
            str(tmp_path / "model"), documents, output_dir=tmp_path / name, documents_per_step=2, trainer=trainer, **how
        )
        rows = map(json.loads, (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [row["train/loss_nats"] for row in rows if "train/loss_nats" in row]

    plain = losses("plain")
    torch._dynamo.reset()
    counters.clear()
    assert losses("compiled", **COMPILED) == pytest.approx(plain, rel=1e-5)
    # Once for the first length, once for all others; of the adapter's model maybe one more.
    assert 0 < counters["stats"]["unique_graphs"] <= 4
    torch._dynamo.reset()
