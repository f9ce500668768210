"""What saving is decided by, on losses made by hand: what is kept, what is left in the model, what is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from afterword.models import Precisions, Saving, Trained, base_in_memory, settle
from afterword.models.save_precision import rounds

HALF = Precisions(torch.bfloat16)
N = 4096


def trained(update: float | torch.Tensor, loss: Any = None, precisions: Precisions = HALF) -> tuple[Trained, Any]:
    """A layer whose weights, all 1 before, have moved by `update`; and its weights as they were trained."""
    layer = nn.Linear(N, 1, bias=False)
    before = torch.ones(1, N)
    with torch.no_grad():
        layer.weight.copy_(before + update)
    measured = {"loss": lambda: loss(layer.weight.detach()), "loss_before": loss(before)} if loss else {}
    kept = layer.weight.detach().clone()
    return Trained(layer, base_in_memory({"weight": before}), precisions, **measured), kept


def mean_gain(weight: torch.Tensor) -> float:
    """A loss that is 3 before and falls with the mean of the weights: what is rounded at random averages out."""
    return 3.0 - 200 * float((weight.double() - 1).mean())


def sharp(target: torch.Tensor) -> Any:
    """A loss of the distance to the trained weights: what is rounded at random costs as much as it gives."""
    return lambda weight: 1.0 + float((weight - target).double().square().mean() / (target - 1).square().mean())


def decided(found: Saving) -> tuple[Any, ...]:
    return found.choice, found.rule, found.saved_in


def test_an_update_of_whole_steps_is_saved_as_the_model_came() -> None:
    # The values of bfloat16 above 1 are 2⁻⁷ apart.
    model, kept = trained(2.0**-6, mean_gain)
    found, precisions = settle(model)
    assert decided(found) == ("as it came", "gain", "bfloat16")
    assert precisions == HALF
    assert found.nearest
    assert found.nearest.gain_frac == pytest.approx(1)
    assert (found.nearest.cosine, found.nearest.along_frac) == (pytest.approx(1), pytest.approx(1))
    assert found.nearest.changed_frac == 1
    assert found.update_norm == pytest.approx(2.0**-6 * N**0.5)
    assert found.stochastic is None
    assert torch.equal(model.model.weight, kept)
    assert found.sentence() == "Saved in bf16, as the model came: rounding keeps 100.0 % of the gain in loss."


def test_what_stochastic_rounding_keeps_is_measured_as_it_fell() -> None:
    model, kept = trained(2.0**-10, mean_gain)
    found, _ = settle(model, seed=3)
    assert decided(found)[1] == "gain"
    assert found.nearest
    assert (found.nearest.gain_frac, found.nearest.cosine, found.nearest.changed_frac) == (0, 0, 0)
    # An eighth of the weights move by a whole step: as much on average, in another direction.
    assert found.stochastic
    assert found.stochastic.changed_frac == pytest.approx(1 / 8, abs=0.03)
    assert found.stochastic.along_frac == pytest.approx(8 * found.stochastic.changed_frac)
    assert found.stochastic.cosine == pytest.approx(found.stochastic.changed_frac**0.5)
    assert found.stochastic.gain_frac == pytest.approx(found.stochastic.along_frac)
    # More than was trained is noise as less is.
    enough = abs(found.stochastic.along_frac - 1) <= 0.01
    assert found.choice == ("rounded stochastically" if enough else "float32")
    assert torch.equal(model.model.weight, kept) != enough


def test_more_than_was_trained_is_not_what_was_trained() -> None:
    model, _ = trained(2.0**-7 * 0.6, mean_gain)
    found, _ = settle(model)
    # All weights are rounded up, from 0.6 of a step to a whole one.
    assert found.nearest
    assert found.nearest.gain_frac == pytest.approx(1 / 0.6, rel=1e-4)
    assert found.choice != "as it came"
    assert "more than was trained, which is noise of the rounding" in found.sentence()


def seed_that(enough: bool) -> int:
    """A seed of stochastic rounding that keeps, or does not, what the mean of the weights is of."""
    for seed in range(100):
        model, _ = trained(2.0**-10, mean_gain)
        found, _ = settle(model, seed=seed)
        if (found.choice == "rounded stochastically") == enough:
            return seed
    raise AssertionError("about one seed in four is within a hundredth")


def test_what_is_rounded_stochastically_is_left_in_the_model_and_follows_from_the_seed() -> None:
    seed = seed_that(enough=True)
    (one, _), (other, _) = trained(2.0**-10, mean_gain), trained(2.0**-10, mean_gain)
    found, precisions = settle(one, seed=seed)
    settle(other, seed=seed)
    weight = one.model.weight.detach()
    assert precisions == HALF
    assert torch.equal(weight, weight.bfloat16().float())
    assert torch.equal(weight, other.model.weight)
    assert "rounded stochastically: that keeps" in found.sentence()
    assert "rounding to the nearest value would keep none of the gain in loss" in found.sentence()


def test_float32_where_neither_keeps_it_with_the_weights_as_they_were_trained() -> None:
    update = torch.full((1, N), 2.0**-10)
    model, kept = trained(update, sharp(1 + update))
    found, precisions = settle(model)
    assert decided(found) == ("float32", "gain", "float32")
    assert precisions.main == torch.float32
    assert torch.equal(model.model.weight, kept)
    assert found.kept is None
    assert found.stochastic
    assert (found.stochastic.gain_frac or 0) < 0
    assert "because bf16 would keep none of the gain in loss" in found.sentence()
    assert "Serve it in float32" in found.sentence()


@pytest.mark.parametrize("asked", ["model", "bf16"])
def test_what_is_asked_for_is_done_measured_and_warned_of(asked: Any) -> None:
    model, _ = trained(2.0**-10, mean_gain)
    found, precisions = settle(model, asked)
    assert (found.rule, found.saved_in, precisions.main) == ("asked for", "bfloat16", torch.bfloat16)
    assert found.nearest
    assert found.nearest.gain_frac == 0
    assert torch.equal(model.model.weight, torch.ones(1, N))
    assert found.sentence().startswith("Warning: saved in bf16, as asked for, and rounding keeps none of the gain")


def test_float32_that_is_asked_for_is_not_measured() -> None:
    def never(_: Any) -> float:
        raise AssertionError("nothing is rounded")

    model, kept = trained(2.0**-10, None)
    model = Trained(model.model, model.base, HALF, loss=lambda: never(None), loss_before=1.0)
    found, precisions = settle(model, "float32")
    assert (decided(found), precisions) == (("float32", "asked for", "float32"), Precisions(torch.float32))
    assert torch.equal(model.model.weight, kept)


def test_nothing_is_measured_where_nothing_is_rounded() -> None:
    model, _ = trained(2.0**-10, mean_gain, Precisions(torch.float32))
    found, _ = settle(model)
    assert (found.rule, found.nearest) == ("nothing is rounded", None)
    assert found.sentence() == "Saved in float32, as the model came: nothing is rounded."


def test_a_tensor_that_came_in_float32_is_not_rounded() -> None:
    precisions = Precisions(torch.bfloat16, {"weight": torch.float32})
    model, kept = trained(2.0**-10, mean_gain, precisions)
    assert not rounds(model.model, precisions)
    assert settle(model)[1].of("weight", kept) == torch.float32
    # Nor where bf16 is asked for of a model that had it beside bf16; of one all in float32 it is.
    assert settle(model, "bf16")[1].of("weight", kept) == torch.float32
    whole, _ = trained(2.0**-10, mean_gain, Precisions(torch.float32))
    assert settle(whole, "bf16")[1].of("weight", kept) == torch.bfloat16


@pytest.mark.parametrize(("update", "choice"), [(2.0**-6, "as it came"), (2.0**-10, "float32")])
def test_the_update_decides_where_no_loss_is_measured(update: float, choice: str) -> None:
    model, _ = trained(update)
    found, _ = settle(model)
    assert (found.choice, found.rule) == (choice, "update")
    assert found.nearest
    assert found.nearest.gain_frac is None
    assert "The update decides, not the gain in loss: no loss was measured" in found.sentence()


def test_the_update_decides_where_the_gain_is_noise() -> None:
    model, _ = trained(2.0**-10, lambda weight: 3.0 - 1e-6 * float((weight - 1).mean()))
    found, _ = settle(model)
    assert (found.choice, found.rule) == ("float32", "update")
    assert "too little to be divided" in found.why_no_gain


def test_a_model_that_was_not_trained_is_saved_as_it_came() -> None:
    model, _ = trained(0.0, mean_gain)
    found, _ = settle(model)
    assert decided(found) == ("as it came", "update", "bfloat16")


def test_the_record_is_json_with_its_sentence() -> None:
    import json

    model, _ = trained(2.0**-10, mean_gain)
    found, _ = settle(model)
    record = json.loads(json.dumps(found.to_json()))
    assert record["sentence"] == found.sentence()
    assert record["nearest"]["gain_frac"] == 0
