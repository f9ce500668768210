"""LoRA, DoRA and QLoRA beside each other: time of a step, memory and loss; and NF4 by two libraries.

    python benchmarks/adapters.py --model smollm2-135m-instruct --documents FILE --output OUT

Every arm is a process of its own and reads the same documents in the same order. Times are processor time of the one
thread, which what else runs on the machine lengthens least. Memory is the most that the process had while it trained
(Linux), beside the bytes of the weights alone. Of QLoRA it also says what the documents cost, in nats per token, under
the base and under base and adapter, in 4 bits and in the base's own precision.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from afterword import models
from afterword.cli.console import say
from afterword.settings.adapt import read_settings
from afterword.training.finish import gain_sample
from afterword.training.memory import bytes_of
from afterword.training.run import load_trainer, quiet_libraries

ARMS = {"lora": {}, "dora": {"use_dora": True}, "qlora": {"load_in_4bit": True}}
_SHARED = {
    "use_peft": True,
    "precision": "bf16_mixed",
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "lora_dropout": 0.0,
}
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """All arms, one after another; or the one that is asked for, in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--documents", required=True)
    parser.add_argument("--count", type=int, default=8, help="documents that are read")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--arm", choices=ARMS)
    asked = parser.parse_args()
    if asked.arm:
        print(json.dumps(arm(asked)))
        return
    asked.output.mkdir(parents=True, exist_ok=True)
    rows = {"layer": layers()}
    for name in ARMS:
        ended = subprocess.run(
            [sys.executable, *sys.argv, "--arm", name], check=True, stdout=subprocess.PIPE, text=True
        )
        rows[name] = json.loads(ended.stdout.splitlines()[-1])
        say(f"{name}: {json.dumps(rows[name])}")
        (asked.output / "adapters.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    say(json.dumps(rows["layer"], indent=1))


class _Timed(TrainerCallback):
    """Processor time of every step."""

    def __init__(self) -> None:
        self.seconds = list[float]()
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self.began)


def arm(asked: argparse.Namespace) -> dict[str, Any]:
    """Train one arm, and say what it took."""
    quiet_libraries()
    torch.set_num_threads(1)
    raw = {**_SHARED, **ARMS[asked.arm], "model_name_or_path": asked.model, "documents": asked.documents}
    raw |= {"num_train_epochs": asked.passes, "max_documents": asked.count}
    with tempfile.TemporaryDirectory() as scratch:
        settings = read_settings({**raw, "output_dir": scratch})
        trainer, _ = load_trainer(settings, None, Path(scratch))
        trainer.args.save_strategy = "no"
        sample = gain_sample(trainer, everything=True)
        with models.as_given(trainer.model):
            before = sample.loss(trainer.model)
        timed = _Timed()
        trainer.add_callback(timed)
        _RESET.write_text("5", encoding="ascii")
        trainer.train()
        peak = int(
            next(line for line in _STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")).split()[
                1
            ]
        )
        row = {
            "steps": len(timed.seconds),
            "base_dtype": str(models.causal_lm(trainer.model).dtype),
            "seconds_per_step": sum(timed.seconds[1:]) / (len(timed.seconds) - 1),
            "tokens": sum(batch.student.tokens for batch in sample.batches),
            "weights_mib": bytes_of(trainer.model.parameters()) / 2**20,
            "peak_mib": peak / 2**10,
            "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            "nll_before_nats": before,
            "nll_after_nats": sample.loss(trainer.model),
        }
        if settings.load_in_4bit:
            row |= _in_its_own_precision(trainer, sample, settings, Path(scratch) / "adapter")
        return row


def _in_its_own_precision(trainer: Any, sample: Any, settings: Any, folder: Path) -> dict[str, float]:
    """The same loss of the base as it is stored, and of the adapter on it."""
    trainer.model.save_pretrained(folder)
    served = models.load_adapted(str(folder), dtype=models.causal_lm(trainer.model).dtype)
    with served.disable_adapter():
        base = sample.loss(served)
    return {"nll_before_nats_own_precision": base, "nll_after_nats_own_precision": sample.loss(served)}


def layers() -> dict[str, dict[str, float]]:
    """A layer [256, 576] x [576, 1536] forward and backward: in bfloat16, in NF4 by bitsandbytes and by torchao."""
    import bitsandbytes as bnb
    from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import to_nf4

    torch.manual_seed(0)
    torch.set_num_threads(1)
    plain = nn.Linear(576, 1536, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    ours = bnb.nn.Linear4bit(576, 1536, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    ours.load_state_dict(plain.state_dict())
    ours = ours.to("cpu")
    ours.support_avx512bf16_for_cpu = False
    theirs = nn.Linear(576, 1536, bias=False, dtype=torch.bfloat16)
    theirs.weight = nn.Parameter(to_nf4(plain.weight.detach()), requires_grad=False)
    found = dict[str, dict[str, float]]()
    for name, layer in (("bfloat16", plain), ("bitsandbytes", ours), ("torchao", theirs)):
        states, seconds = torch.randn(256, 576, dtype=torch.bfloat16).requires_grad_(), list[float]()
        for _ in range(6):
            began = time.thread_time()
            layer(states).sum().backward()
            seconds.append(time.thread_time() - began)
        with torch.no_grad():
            apart = (layer(states).float() - plain(states).float()).norm() / plain(states).float().norm()
        held = bytes_of([layer.weight])
        found[name] = {"ms": 1000 * min(seconds), "bytes_a_weight": held / plain.weight.numel(), "apart": float(apart)}
    return found


if __name__ == "__main__":
    main()
