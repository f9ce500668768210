"""What keeps the processes of a sharded run in step, and what of sharding is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin

from afterword import CheckpointError, ConfigError
from afterword.batching import Packing, micro_batches
from afterword.processes import is_sharded, sharded_like, whole
from afterword.training import lockstep, sharding
from afterword.training.sharding import prepare_sharding, refuse_before_loading
from afterword.training.whole_checkpoints import _refuse_other_kind


def trainer_with(optimizer: Any = None, *, deepspeed: Any = None, split: Any = None, **fsdp: Any) -> Any:
    """What a Trainer knows when it has made its Accelerator."""
    plugin = FullyShardedDataParallelPlugin(**fsdp) if fsdp else None
    state = SimpleNamespace(fsdp_plugin=plugin, deepspeed_plugin=deepspeed)
    accelerator = SimpleNamespace(state=state, parallelism_config=split)
    optimizer = optimizer and (optimizer, {})
    return SimpleNamespace(accelerator=accelerator, optimizer_cls_and_kwargs=optimizer, args=SimpleNamespace(fsdp=None))


REFUSED = {
    "version": trainer_with(fsdp_version=1),
    "cpu_ram_efficient_loading": trainer_with(fsdp_version=2, cpu_ram_efficient_loading=True),
    "cpu_offload": trainer_with(fsdp_version=2, cpu_offload=True, cpu_ram_efficient_loading=False),
    "optimizer_states": trainer_with(
        SimpleNamespace(rounds_stochastically=True), fsdp_version=2, cpu_ram_efficient_loading=False
    ),
    "deepspeed": trainer_with(deepspeed=object()),
    "parallelism_config": trainer_with(split=SimpleNamespace(tp_enabled=True)),
}


@pytest.mark.parametrize("setting", REFUSED)
def test_ways_to_shard_with_another_gradient_are_refused(setting: str) -> None:
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
        ({}, {"deepspeed": "zero3.json"}, "deepspeed"),
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
    assert lockstep.in_lockstep([], model) == []


@pytest.fixture
def two_terms(tokenizer: Any, documents: Any, tmp_path: Path) -> Any:
    """Micro-batches of two terms, three of each."""
    from afterword.methods import METHODS
    from afterword.training.checking import special_tokens_for
    from afterword.training.parts import Part, as_windows
    from afterword.training.steps import Draw, Examples
    from afterword.views import Reading

    method = METHODS["disc"]
    windows = as_windows(documents[:3], tmp_path, method.view, tokenizer, Reading(max_length=256))
    parts = (Part("documents", windows, special_tokens_for(tokenizer, method)),)
    examples = Examples(parts, method.terms(general=False), 0)
    drawn = [examples[Draw(number, 0)] for number in range(3)]
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

    monkeypatch.setattr(lockstep, "is_sharded", lambda model: True)
    monkeypatch.setattr(lockstep, "gathered", gathered)
    lockstep.in_lockstep(others, None)
    even = lockstep.in_lockstep(mine, None)
    assert [batch.term for batch in even] == [0, 0, 0, 1, 1]
    assert even[0].student is mine[0].student
    # The teacher is asked as often as that of the other process, and what it is asked for nothing comes last.
    assert [view.tokens for view in even[0].teacher] == [mine[0].teacher[0].tokens, 0]
    assert len(torch.cat([view.trained for view in even[0].teacher])) == len(mine[0].target_ids)
    assert all(batch.total_weight == 0 and not batch.documents for batch in even[1:])


def test_an_idle_batch_is_read_and_trains_nothing(two_terms: Any, build_model: Any) -> None:
    from afterword.models import head_of, trained_states
    from afterword.objectives import Prediction, weighted_sum

    idle, model = lockstep.idle(two_terms[0]), build_model()
    assert idle.teacher
    assert idle.student.tokens == idle.teacher[0].tokens == 0
    states = trained_states(model, idle.student)
    loss, parts = weighted_sum(Prediction(), (states, head_of(model)), None, idle.target_ids, idle.weights)
    loss.backward()
    assert (len(parts), float(loss.detach())) == (0, 0.0)
    # Gradients of zeros, and not none: the processes reduce those of all weights together.
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in model.parameters())


def test_checkpoints_with_and_without_shards_are_not_resumed_as_each_other(tmp_path: Path) -> None:
    _refuse_other_kind(tmp_path, sharded=False)
    with pytest.raises(CheckpointError, match="has its optimizer whole"):
        _refuse_other_kind(tmp_path, sharded=True)
    (tmp_path / "pytorch_model_fsdp_0").mkdir()
    _refuse_other_kind(tmp_path, sharded=True)
    with pytest.raises(CheckpointError, match="is of a run with fsdp"):
        _refuse_other_kind(tmp_path, sharded=False)


def test_deepspeed_is_refused_for_what_it_does_and_not_because_it_is_not_installed(
    model_folder: Path, documents: Any, tmp_path: Path
) -> None:
    from afterword import adapt

    with pytest.raises(ConfigError, match=r"deepspeed: its engine .* Use trainer\.fsdp"):
        adapt(str(model_folder), documents, output_dir=tmp_path / "run", trainer={"deepspeed": "ds.json"})
    assert not (tmp_path / "run").exists()
