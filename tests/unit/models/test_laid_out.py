"""Weights that are laid out for reading give the products that they gave before, and are gone after."""

import pytest
import torch
from tiny_models import random_llama
from torch import nn

from afterword.models import laid_out as module
from afterword.models.laid_out import laid_out

pytestmark = pytest.mark.skipif(not module._known(), reason="this build of torch cannot lay weights out")


def _set_apart(model: nn.Module) -> int:
    return sum("forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 10])
def test_products_are_those_of_the_same_factors(dtype: torch.dtype, rows: int):
    layer = nn.Linear(48, 80).to(dtype)
    model = nn.Sequential(layer, nn.Linear(80, 33, bias=False).to(dtype))
    draw = torch.Generator().manual_seed(0)
    # As a step has them: rows of one token each, and the rows of a prompt that is read at once.
    for shape in ((rows, 1, 48), (rows, 7, 48), (rows, 48)):
        states = torch.randn(shape, generator=draw).to(dtype)
        with torch.no_grad():
            expected = model(states)
            with laid_out(model, rows):
                assert _set_apart(model) == 2
                found = model(states)
        assert found.dtype == dtype
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-5 if dtype == torch.float32 else 2**-7, atol=1e-5)
    assert _set_apart(model) == 0
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(layer(states)[0], layer.bias), "what is written next is of the weights as they are then"


def test_under_autocast_products_are_in_its_precision():
    model, states = nn.Linear(48, 80), torch.randn(4, 1, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(states)
        with laid_out(model, 4):
            found = model(states)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.allclose(found, expected, rtol=2**-7, atol=1e-3)


def test_a_model_is_left_as_it_was_also_by_an_error():
    model = random_llama(0)

    def fails():
        with laid_out(model, 4):
            assert _set_apart(model) > 0
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert _set_apart(model) == 0


def test_other_layers_and_other_numbers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    class Own(nn.Linear):
        """A product with something else in it."""

    set_apart = nn.Linear(4, 4)
    set_apart.forward = lambda input: input  # as hooks of accelerate do
    for model in (Own(4, 4), nn.Linear(4, 4).double(), nn.Linear(4, 4).half(), set_apart):
        before = _set_apart(model)
        with laid_out(model, 2):
            assert _set_apart(model) == before
        assert _set_apart(model) == before
    monkeypatch.setattr(module, "_FREE_SHARE", 0.0)
    scarce = nn.Linear(4, 4)
    with laid_out(scarce, 2):
        assert _set_apart(scarce) == 0, "memory is short"
