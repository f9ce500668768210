"""What test_sharded.py runs on one process and on two: gradients of one step, and runs of the command line.

Run as a program in a folder, with the way to shard: one (not at all), fsdp, or zero3.
"""

import gc
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from afterword import distributed
from afterword.data.batching import Packing, to_device
from afterword.data.mixture import SourceShare
from afterword.methods import METHODS
from afterword.models import LoraSettings, freeze, load_model, load_tokenizer, trained_states, with_lora
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training import run as adapting
from afterword.training.callbacks import RichProgress
from afterword.training.sources import MixtureSource

HOW = sys.argv[1] if __name__ == "__main__" else "one"
CASES: dict[str, dict[str, Any]] = {
    "untied": {"method": "disc", "head": "untied"},
    # After a forward the head is whole with accelerate's way of sharding, and a shard with this one.
    "untied-shards": {"method": "disc", "head": "untied", "shards": True},
    "tied": {"method": "disc", "head": "tied"},
    "tied-shards": {"method": "disc", "head": "tied", "shards": True},
    "two-terms": {"method": "mixcpt", "head": "untied", "documents": 5},
    "whole-step": {"method": "talr", "head": "tied", "shards": True},
    "lora": {"method": "mixcpt", "head": "tied", "lora": ()},
    "bf16": {"method": "disc", "head": "untied", "bf16": True},
    "lora-bf16": {"method": "disc", "head": "tied", "lora": (), "bf16": True, "dtype": torch.bfloat16},
    "lora-and-head": {"method": "disc", "head": "untied", "lora": ("lm_head",), "shards": True},
}
SETTINGS = (
    "--num-train-epochs 2 --documents-per-step 4 --micro-batch-tokens 128 --max-length 128 --learning-rate 1e-3 "
    "--lr-scheduler-type constant --save-steps 2 --save-total-limit 9 --gradient-accumulation-steps 2"
)
RUNS = {
    "full": "--method disc --l2sp 0.1 --ema 0.9 --ema-steps 4 --eval-documents docs.jsonl --eval-steps 3",
    "plain": "--method disc --eval-documents docs.jsonl --eval-steps 3",
    "lora": "--method mixcpt --mixture general=general.jsonl,tokens=0.4 --use-peft --lora-dropout 0 --merge-adapter "
    "--teacher cached",
}
RUN_BY = {"one": tuple(RUNS), "fsdp": ("full", "lora"), "zero3": ("plain", "lora")}
"""L2-SP and averages read weights where ZeRO-3 has none, and are refused there."""
FSDP = {"full": {"activation_checkpointing": True}, "lora": {"state_dict_type": "SHARDED_STATE_DICT"}}
ZERO3: dict[str, Any] = {
    "zero_optimization": {"stage": 3},
    **dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
        "auto",
    ),
}
STOPPED_AT = 4
"""Step in which a run is stopped; the last checkpoint is that of step 2, between two averagings."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C."""


def shard_on_cpus() -> None:
    """accelerate shards on GPUs alone, and takes for one whatever it is told is one."""
    from accelerate import state
    from accelerate.utils import DistributedType

    plain = state.PartialState.__init__

    def as_gpus(self: Any, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    state.PartialState.__init__ = as_gpus


def build_nothing() -> None:
    """DeepSpeed compiles its reduction in shared memory where it is first used, under a lock that is a file.

    A process that is killed meanwhile leaves the file, and whoever comes next waits for it for ever.
    """
    backend: Any = importlib.import_module("deepspeed.comm.torch")  # The package's `torch` is PyTorch.
    backend.build_shm_op = lambda: None


def gradient(folder: Path, name: str, case: dict[str, Any]) -> None:
    """The gradient of a case's first step, whole, in a file."""
    model = load_model(str(folder / f"student-{case['head']}"), dtype=case.get("dtype", torch.float32))
    method = METHODS[case["method"]]
    documents = case.get("documents", 9)
    if "lora" in case:
        model = with_lora(model, LoraSettings(dropout=0.0, modules_to_save=case["lora"]), 0)
        move_adapter(model)
    arguments: dict[str, Any] = {
        "one": {"use_cpu": True},
        "fsdp": {"use_cpu": True, "fsdp": True, "fsdp_config": {"version": 2}},
        "zero3": {"deepspeed": ZERO3},
    }[HOW]
    rows, general = (json.loads((folder / f"{kind}.json").read_text()) for kind in ("rows", "general"))
    general = {"general": MixtureSource(documents=general, share=SourceShare(tokens=0.4))}
    trainer = AdaptationTrainer(
        model,
        training_arguments(method, output_dir=str(folder / "out"), seed=3, bf16="bf16" in case, **arguments),
        train_dataset=rows[:documents],
        mixture=general if method.takes_general_text else {},
        processing_class=load_tokenizer(str(folder / "student-tied")),
        method=method,
        teacher=None if "lora" in case else freeze(load_model(str(folder / f"reference-{case['head']}"))),
        documents_per_step=documents,
        packing=Packing(128),
    )
    wrapped, _ = trainer._prepare_for_training(1, trainer.get_train_dataloader(), None)
    assert distributed.is_sharded(wrapped) == (HOW != "one")
    if HOW == "fsdp" and "shards" in case:
        wrapped.set_reshard_after_forward(True)
    parts, total = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    if name == "two-terms":
        # Unequal numbers of micro-batches, or nothing that evens them out is tested.
        counts = distributed.gathered([tuple(sorted(Counter(batch.term for batch in parts[0]).items()))])
        assert len(set(counts)) == distributed.process_count(), counts
    if HOW == "fsdp" and "lora" not in case:
        with torch.no_grad():
            trained_states(wrapped, to_device(parts[0][0], trainer.args.device).student)
        assert distributed.is_shard(wrapped.lm_head.weight) == ("shards" in case)
    trainer.training_step(wrapped, parts[0], total)
    found = dict(gradients(trainer))
    norm = torch.as_tensor(trainer._get_grad_norm(wrapped)).detach().float()
    if distributed.is_main_process():
        save_file({**found, "norm": norm}, folder / f"{name}-{HOW}.safetensors")


def gradients(trainer: AdaptationTrainer) -> Iterator[tuple[str, torch.Tensor]]:
    """Of every parameter that is trained, whole, before the optimizer step."""
    for name, parameter in trainer.model.named_parameters():
        if HOW == "zero3":
            from deepspeed.utils import safe_get_full_grad  # pyright: ignore  # no dependency of ours

            gradient = safe_get_full_grad(parameter) if parameter.requires_grad else None
        else:
            gradient = distributed.whole(parameter.grad)
        if gradient is not None:
            yield name, gradient.contiguous()


def move_adapter(model: Any) -> None:
    """Away from where it says nothing."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)


def run(folder: Path, name: str, output: str, *, stop_at: int | None = None) -> None:
    """A run as it is typed. With `stop_at` it is stopped by Ctrl-C in that step."""
    from accelerate.state import GradientState

    from afterword.cli import main

    # As in a new process: the stopped run was between two parts of a step, and one with DeepSpeed leaves a mark.
    GradientState._reset_state()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)

    class Progress(RichProgress):
        def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if stop_at == state.global_step + 1:
                raise Stopped

    adapting.RichProgress = Progress
    words = f"adapt student-{'untied' if name == 'full' else 'tied'} docs.jsonl -o {output} {SETTINGS} {RUNS[name]}"
    more: list[str] = []
    if HOW == "fsdp":
        config = json.dumps({"version": 2, **FSDP[name]})
        more = ["--trainer", "fsdp=true", "--trainer", f"fsdp_config={config}"]
    elif HOW == "zero3":
        more = ["--trainer", f"deepspeed={json.dumps(ZERO3)}"]
    sys.argv = ["afterword", *words.split(), *more]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    assert code == (130 if stop_at else 0), code


def everything(folder: Path) -> None:
    """All gradients, and all runs; on several processes also stopped and resumed."""
    # No run looks through all that was imported when it frees memory.
    gc.freeze()
    for name, case in CASES.items():
        gradient(folder, name, case)
    for name in RUN_BY[HOW]:
        run(folder, name, f"{name}-{HOW}")
        if HOW != "one":
            run(folder, name, f"{name}-{HOW}-resumed", stop_at=STOPPED_AT)
            run(folder, name, f"{name}-{HOW}-resumed")


if __name__ == "__main__":
    if HOW == "fsdp":
        shard_on_cpus()
    elif HOW == "zero3":
        build_nothing()
    everything(Path.cwd())
