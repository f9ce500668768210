"""What keeps the processes of a sharded run in step, and what of sharding is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

from afterword import CheckpointError, ConfigError
from afterword.data.batching import Packing, micro_batches
from afterword.distributed import is_sharded, sharded_like, whole
from afterword.training import sharding
from afterword.training.checkpoints import _refuse_other_kind
from afterword.training.sharding import prepare_sharding, refuse_before_loading


def trainer_with(optimizer: Any = None, *, deepspeed: Any = None, split: Any = None, **fsdp: Any) -> Any:
    """What a Trainer knows when it has made its Accelerator."""
    plugin = FullyShardedDataParallelPlugin(**fsdp) if fsdp else None
    state = SimpleNamespace(fsdp_plugin=plugin, deepspeed_plugin=deepspeed)
    accelerator = SimpleNamespace(state=state, parallelism_config=split)
    optimizer = optimizer and (optimizer, {})
    held = {"model": torch.nn.Linear(1, 1), "pull": None, "average": None}
    args = SimpleNamespace(fsdp=None, bf16=True)
    return SimpleNamespace(accelerator=accelerator, optimizer_cls_and_kwargs=optimizer, args=args, **held)


def zero3_with(**config: Any) -> Any:
    """The same of a run with DeepSpeed."""
    return trainer_with(deepspeed=SimpleNamespace(deepspeed_config={"zero_optimization": {"stage": 3}, **config}))


def zero3_that(**held: Any) -> Any:
    """The same with what the trainer holds."""
    trainer = zero3_with()
    vars(trainer).update(held)
    return trainer


REFUSED = {
    "version": trainer_with(fsdp_version=1),
    "cpu_ram_efficient_loading": trainer_with(fsdp_version=2, cpu_ram_efficient_loading=True),
    "cpu_offload": trainer_with(fsdp_version=2, cpu_offload=True, cpu_ram_efficient_loading=False),
    "optimizer_states": trainer_with(
        SimpleNamespace(rounds_stochastically=True), fsdp_version=2, cpu_ram_efficient_loading=False
    ),
    "zero_optimization.stage: 2": zero3_with(zero_optimization={"stage": 2}),
    "offload_optimizer": zero3_with(zero_optimization={"stage": 3, "offload_optimizer": {"device": "cpu"}}),
    "deepspeed.optimizer": zero3_with(optimizer={"type": "AdamW"}),
    "deepspeed.scheduler": zero3_with(scheduler={"type": "WarmupLR"}),
    "deepspeed.fp16": zero3_with(fp16={"enabled": True}),
    "l2sp": zero3_that(pull=0.1),
    "ema": zero3_that(average=object()),
    "optimizer_states: .* ZeRO-3": zero3_that(
        optimizer_cls_and_kwargs=(SimpleNamespace(rounds_stochastically=True), {})
    ),
    "model: was loaded in shards": zero3_that(model=SimpleNamespace(parameters=lambda: [SimpleNamespace(ds_id=0)])),
    "parallelism_config": trainer_with(split=SimpleNamespace(tp_enabled=True)),
}


@pytest.mark.parametrize("setting", REFUSED)
def test_ways_to_shard_with_another_gradient_are_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where DeepSpeed was not imported, no model is in its shards.
    monkeypatch.setitem(sys.modules, "deepspeed", ModuleType("deepspeed"))
    with pytest.raises(ConfigError, match=setting) as refused:
        prepare_sharding(REFUSED[setting])
    assert len(refused.value.problems) == 1


def test_weights_are_gathered_as_they_are_kept() -> None:
    trainer = trainer_with(fsdp_version=2, cpu_ram_efficient_loading=False)
    trainer.accelerator.state.fsdp_plugin.set_mixed_precision("bf16")
    prepare_sharding(trainer)
    assert trainer.accelerator.state.fsdp_plugin.mixed_precision_policy is None


def test_sharding_that_accelerate_would_leave_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_with()
    trainer.args.fsdp = True
    prepare_sharding(trainer)  # of one process the Trainer itself says it
    monkeypatch.setattr(sharding, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="fsdp: accelerate shards on GPUs alone"):
        prepare_sharding(trainer)


@pytest.mark.parametrize(
    ("environment", "settings", "named"),
    [
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "cpu_ram_efficient_loading"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "1"}, {}, "deepspeed"),
    ],
)
def test_a_model_is_not_loaded_without_weights(
    environment: Any, settings: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_before_loading({})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        refuse_before_loading(settings)


def test_one_process_has_everything_whole(build_model: Any) -> None:
    model = build_model()
    assert not is_sharded(model)
    weight = model.lm_head.weight
    assert whole(weight) is weight
    assert sharded_like(weight, weight) is weight
    assert sharding.in_lockstep([], model) == []


@pytest.fixture
def two_terms(tokenizer: Any, documents: Any, tmp_path: Path) -> Any:
    """Micro-batches of two terms, three of each."""
    from afterword.data import WindowSettings
    from afterword.methods import METHODS
    from afterword.training.sources import Source, as_windows, special_tokens_for
    from afterword.training.steps import ExampleKey, Examples

    method = METHODS["disc"]
    windows = as_windows(documents[:3], tmp_path, method.view, tokenizer, WindowSettings(max_length=256))
    parts = (Source("documents", windows, special_tokens_for(tokenizer, method)),)
    examples = Examples(parts, method.terms(general=()), 0)
    drawn = [examples[ExampleKey(number, 0)] for number in range(3)]
    both = [*drawn, *(replace(example, term=1) for example in drawn)]
    return [batch for example in both for batch in micro_batches([example], Packing(512))]


def test_every_process_gets_as_many_batches_of_every_term(two_terms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [batch for batch in two_terms if batch.term == 0][:1]
    others = [batch for batch in two_terms if batch.term == 0][:3] + [b for b in two_terms if b.term == 1][:2]
    others[0] = replace(others[0], teacher=others[0].teacher * 2)
    seen: dict[type, list[Any]] = {dict: [], int: []}

    def gathered(said: list[Any]) -> list[Any]:
        # What each process says is kept, and the second one hears both.
        seen[type(said[0])] += said
        return seen[type(said[0])]

    monkeypatch.setattr(sharding, "is_sharded", lambda model: True)
    monkeypatch.setattr(sharding, "gathered", gathered)
    sharding.in_lockstep(others, None)
    even = sharding.in_lockstep(mine, None)
    assert [batch.term for batch in even] == [0, 0, 0, 1, 1]
    assert even[0].student is mine[0].student
    # The teacher is asked as often as that of the other process, and what it is asked for nothing comes last.
    assert [view.tokens for view in even[0].teacher] == [mine[0].teacher[0].tokens, 0]
    assert len(torch.cat([view.trained for view in even[0].teacher])) == len(mine[0].target_ids)
    assert all(batch.total_weight == 0 and not batch.documents for batch in even[1:])


def test_an_idle_batch_is_read_and_trains_nothing(two_terms: Any, build_model: Any) -> None:
    from afterword.models import head_of, trained_states
    from afterword.objectives import Prediction, weighted_sum

    idle, model = sharding.idle(two_terms[0]), build_model()
    assert idle.teacher
    assert idle.student.tokens == idle.teacher[0].tokens == 0
    states = trained_states(model, idle.student)
    loss, parts = weighted_sum(Prediction(), (states, head_of(model)), None, idle.target_ids, idle.weights)
    loss.backward()
    assert (len(parts), float(loss.detach())) == (0, 0.0)
    # Gradients of zeros, and not none: the processes reduce those of all weights together.
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in model.parameters())


@pytest.mark.parametrize(("how", "file"), [("fsdp", "pytorch_model_fsdp_0"), ("deepspeed", "global_step4")])
def test_checkpoints_with_and_without_shards_are_not_resumed_as_each_other(how: str, file: str, tmp_path: Path) -> None:
    _refuse_other_kind(tmp_path, "")
    with pytest.raises(CheckpointError, match="has its optimizer whole"):
        _refuse_other_kind(tmp_path, how)
    (tmp_path / file).mkdir()
    _refuse_other_kind(tmp_path, how)
    with pytest.raises(CheckpointError, match=f"is of a run with {how}"):
        _refuse_other_kind(tmp_path, "")
    with pytest.raises(CheckpointError, match=f"is of a run with {how}"):
        _refuse_other_kind(tmp_path, {"fsdp": "deepspeed", "deepspeed": "fsdp"}[how])


def test_with_zero3_nothing_is_held_or_sent_in_half_precision() -> None:
    trainer = zero3_with(bf16={"enabled": True})
    prepare_sharding(trainer)
    config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
    assert not config["bf16"]["enabled"]
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}


def test_deepspeed_that_is_not_installed_is_said_before_anything_is_read(
    model_folder: Path, documents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afterword import adapt

    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"deepspeed: is not installed"):
        adapt(str(model_folder), documents, output_dir=tmp_path / "run", trainer={"deepspeed": "ds.json"})
    assert not (tmp_path / "run").exists()
