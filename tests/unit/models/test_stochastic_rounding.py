"""Rounding: on average a value stays where it was, and what is drawn follows from the seed and the name."""

import pytest
import torch

from afterword.models import stochastic_rounding
from afterword.models.stochastic_rounding import is_narrower, nearest, stochastic

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def values():
    torch.manual_seed(0)
    wide = torch.randn(400) * 10.0 ** torch.randint(-6, 3, (400,))
    return torch.cat([wide, torch.tensor([0.0, -0.0, 1e-9, -1e-9, 1.0, -1.0])])


def distance_of_neighbours(x, dtype):
    """By torch's own order of values: the next one above what is at or below x."""
    near = x.to(dtype)
    infinity = torch.full_like(near, float("inf"))
    up = torch.where(near.float() > x, near, torch.nextafter(near, infinity))
    down = torch.where(near.float() > x, torch.nextafter(near, -infinity), near)
    return down.float(), up.float()


@HALVES
def test_a_value_becomes_one_of_its_neighbours_and_stays_on_average(dtype):
    x = values()
    down, up = distance_of_neighbours(x, dtype)
    drawn = torch.stack([stochastic(x, dtype, seed=seed, name="w") for seed in range(1500)])
    exact = x == nearest(x, dtype)
    assert torch.equal(drawn[:, exact], x[exact].expand(1500, -1))
    rest = ~exact
    assert bool(((drawn == down) | (drawn == up))[:, rest].all())
    # The share that goes up is the place between the neighbours, within five standard errors.
    share = (drawn == up).double().mean(0)[rest]
    place = ((x - down) / (up - down)).double()[rest]
    assert bool(((share - place).abs() < 5 * (0.25 / 1500) ** 0.5).all())
    assert float(place.min()) < 0.1
    assert float(place.max()) > 0.9


@HALVES
def test_the_largest_values_never_become_infinite(dtype):
    largest = torch.finfo(dtype).max
    x = torch.tensor([largest, -largest, largest * (1 - 1e-7)])
    assert all(stochastic(x, dtype, seed=seed, name="w").isfinite().all() for seed in range(50))


def test_draws_follow_from_seed_and_name():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    first = stochastic(x, torch.bfloat16, seed=0, name="a")
    assert torch.equal(first, stochastic(x, torch.bfloat16, seed=0, name="a"))
    assert not torch.equal(first, stochastic(x, torch.bfloat16, seed=1, name="a"))
    assert not torch.equal(first, stochastic(x, torch.bfloat16, seed=0, name="b"))
    # However it is cut, and whatever was drawn from torch's own state.
    torch.manual_seed(5)
    assert torch.equal(first, stochastic(x.view(64, 64).t().t(), torch.bfloat16, seed=0, name="a").flatten())


def test_pieces_change_nothing_but_memory(monkeypatch):
    monkeypatch.setattr(stochastic_rounding, "PIECE_VALUES", 100)
    x = torch.linspace(0.5, 1.5, 1001)
    down, up = distance_of_neighbours(x, torch.bfloat16)
    rounded = stochastic(x, torch.bfloat16, seed=0, name="w")
    assert bool(((rounded == down) | (rounded == up)).all())
    assert 0.4 < float((rounded != nearest(x, torch.bfloat16)).float().mean()) * 2 < 0.6


def test_what_is_narrower():
    assert is_narrower(torch.float16, torch.bfloat16)  # of range, though not of digits
    assert is_narrower(torch.bfloat16, torch.float16)
    assert not is_narrower(torch.float32, torch.float32)
    assert not is_narrower(torch.float32, torch.bfloat16)
    assert not is_narrower(torch.int64, torch.float32)
