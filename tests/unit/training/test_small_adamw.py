"""AdamW with small states: the same steps as torch's, and bfloat16 weights that move as float32 ones do on average."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from afterword.errors import ConfigError
from afterword.methods import METHODS
from afterword.settings.adapt import read_settings
from afterword.training import AdaptationTrainer, small_adamw, training_arguments
from afterword.training.optimizers import optimizer_of
from afterword.training.small_adamw import RoundedAdamW, RoundedAdamW8bit

RATES: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
SHAPES = ((700, 64), (40, 256), (37,), ())
BOTH = pytest.mark.parametrize("kind", [RoundedAdamW, RoundedAdamW8bit])


def weights(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def train(optimizer: Any, parameters: Any, steps: int, first: int = 0) -> None:
    """Steps on gradients that follow from the step's number."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


def distances(kind: Any) -> list[float]:
    """How far ten steps end from torch's AdamW, weight by weight, relative to how far they went."""
    ours, theirs, before = weights(), weights(), weights()
    train(kind(ours, seed=0, **RATES), ours, 10)
    train(torch.optim.AdamW(theirs, **RATES), theirs, 10)
    triples = zip(ours, theirs, before, strict=True)
    return [((a - b).norm() / (b - start).norm()).item() for a, b, start in triples]


def test_float32_moments_give_the_steps_of_plain_adamw() -> None:
    assert max(distances(RoundedAdamW)) < 1e-4


def test_8bit_moments_give_nearly_the_steps_of_plain_adamw() -> None:
    large, blocks, *small = distances(RoundedAdamW8bit)
    # 8 bits are 3 digits at best; and a weight that is too small for blocks keeps float32 moments.
    assert 1e-4 < large < 0.03
    assert 1e-4 < blocks < 0.03
    assert max(small) < 1e-4


@BOTH
def test_pieces_of_a_weight_are_updated_as_the_whole(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = weights(), weights()
    train(kind(whole, seed=0, **RATES), whole, 3)
    monkeypatch.setattr(small_adamw, "PIECE_ELEMENTS", 256 * 64)
    train(kind(pieces, seed=0, **RATES), pieces, 3)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@BOTH
def test_updates_below_half_an_ulp_move_a_bfloat16_weight_as_they_move_a_float32_one(kind: Any) -> None:
    """At 1 the next bfloat16 are 2^-8 below and 2^-7 above; with a constant gradient a step of AdamW is its rate."""
    rate, steps, count = 2**-12, 24, 16384

    def moved(optimizer: Any, dtype: torch.dtype, **more: Any) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(count, dtype=dtype))
        made = optimizer([weight], **{**RATES, "lr": rate, "weight_decay": 0.0}, **more)
        for _ in range(steps):
            weight.grad = -torch.ones_like(weight)
            made.step()
        return weight.detach().float() - 1

    assert moved(torch.optim.AdamW, torch.bfloat16).abs().max() == 0, "rounded to the nearest, nothing moves"
    # Of the same class, because 8-bit moments themselves are off by some percent.
    wanted = moved(kind, torch.float32, seed=0).mean()
    found = moved(kind, torch.bfloat16, seed=0)
    # A weight is at 1 or one of the next values: a binomial, whose mean is known to sd / sqrt(count).
    assert abs(found.mean() - wanted) < 5 * found.std() / count**0.5
    assert found.std() > 0.1 * 2**-7


@BOTH
def test_no_moment_is_bfloat16_also_after_loading(kind: Any) -> None:
    parameters = weights(torch.bfloat16)
    optimizer = kind(parameters, seed=0, **RATES)
    train(optimizer, parameters, 2)
    again = kind(parameters, seed=0, **RATES)
    again.load_state_dict(optimizer.state_dict())
    for parameter in parameters:
        for name in ("exp_avg", "exp_avg_sq"):
            before, after = optimizer.state[parameter][name], again.state[parameter][name]
            assert type(after) is type(before)
            if type(after) is torch.Tensor:
                assert after.dtype == torch.float32
                assert torch.equal(after, before)


@BOTH
def test_rounding_follows_from_seed_and_step_alone(kind: Any) -> None:
    """So that processes with other random numbers, and a resumed run, round alike."""
    ends = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        parameters = weights(torch.bfloat16)
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        train(kind(parameters, seed=seed, **RATES), parameters, 3)
        assert torch.equal(torch.get_rng_state(), state)
        ends.append(torch.cat([p.detach().flatten() for p in parameters]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_every_step_rounds_anew() -> None:
    """The same noise at every step would move the same weights always."""
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = RoundedAdamW([weight], seed=0, **{**RATES, "lr": 2**-9, "weight_decay": 0.0})
    moved = []
    for _ in range(2):
        before = weight.detach().clone()
        weight.grad = -torch.ones_like(weight)
        optimizer.step()
        moved.append(weight.detach() != before)
    both = (moved[0] & moved[1]).float().mean()
    assert both == pytest.approx(float(moved[0].float().mean() * moved[1].float().mean()), abs=0.03)


def trainer_of(model: Any, documents: Any, tokenizer: Any, folder: Path, **raw: Any) -> AdaptationTrainer:
    settings = read_settings({"model_name_or_path": "m", **raw})
    other = {"seed": 3, "learning_rate": 1e-3, "adam_beta2": 0.95, "adam_epsilon": 1e-7}
    arguments = training_arguments(METHODS["disc"], output_dir=str(folder), **other)
    made = optimizer_of(settings, model, arguments)
    given = {"train_dataset": documents, "processing_class": tokenizer, "optimizer_cls_and_kwargs": made}
    return AdaptationTrainer(model, arguments, method="disc", **given)


@pytest.mark.parametrize("states", ["float32", "8bit"])
def test_the_declaration_reaches_the_optimizer(
    states: str, build_model: Any, documents: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Rates, betas, eps and the decay of every parameter reach the optimizer."""
    model = build_model(hidden_size=64, intermediate_size=128)
    trainer = trainer_of(
        model.to(torch.bfloat16), documents, tokenizer, tmp_path, precision="bf16", optimizer_states=states
    )
    optimizer: Any = trainer.create_optimizer()
    assert type(optimizer) is {"float32": RoundedAdamW, "8bit": RoundedAdamW8bit}[states]
    decayed = sum(p.numel() for g in optimizer.param_groups if g["weight_decay"] == 0.01 for p in g["params"])
    assert decayed == sum(p.numel() for p in model.parameters())
    (group, *_) = optimizer.param_groups
    assert float(group["lr"]) == pytest.approx(1e-3)
    assert (group["betas"], group["eps"], optimizer.seed) == ((0.9, 0.95), 1e-7, 3)


def test_float32_weights_keep_torchs_own_adamw(
    build_model: Any, documents: Any, tokenizer: Any, tmp_path: Path
) -> None:
    for raw in ({}, {"optimizer_states": "float32"}):
        trainer = trainer_of(build_model(), documents, tokenizer, tmp_path, **raw)
        assert type(trainer.create_optimizer()) is torch.optim.AdamW


@pytest.mark.parametrize("states", [None, "float32", "8bit"])
def test_lost_updates_are_warned_of_only_where_they_are_lost(
    states: str | None, build_model: Any, documents: Any, tokenizer: Any, tmp_path: Path
) -> None:
    model = build_model().to(torch.bfloat16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_of(model, documents, tokenizer, tmp_path, precision="bf16", optimizer_states=states)
    lost = [str(warning.message) for warning in caught if "rounded away" in str(warning.message)]
    assert len(lost) == (states is None)
    assert all("optimizer_states=float32" in message for message in lost)


def test_another_optimizer_beside_it_is_refused(build_model: Any, tmp_path: Path) -> None:
    settings = read_settings({"model_name_or_path": "m", "optimizer_states": "8bit", "trainer": {"optim": "adafactor"}})
    arguments = training_arguments(METHODS["disc"], output_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"optimizer_states: 8bit is AdamW's, and trainer.optim is 'adafactor'"):
        optimizer_of(settings, build_model(), arguments)


def test_without_torchao_the_command_that_installs_it_is_said(
    build_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings({"model_name_or_path": "m", "optimizer_states": "8bit"})
    arguments = training_arguments(METHODS["disc"], output_dir=str(tmp_path))
    model = build_model()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optimizer_states: 8bit needs torchao.*pip install 'afterword\[small\]'"):
        optimizer_of(settings, model, arguments)
