"""The way from the model as it was given to the model as it was trained, walked in place."""

import copy

import pytest
import torch

from afterword.models import Between, LoraSettings, blended, with_lora


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture
def ids():
    return torch.arange(3, 23)[None]


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_the_ends_of_the_way_are_what_was_given_and_what_was_trained(build_model, ids, adapter):
    model = build_model("llama")
    if adapter:
        model = with_lora(model, LoraSettings(dropout=0.0), 0)
    given, way = logits(model, ids), Between(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    trained = {name: weight.clone() for name, weight in model.named_parameters()}
    for share in (0.5, 0.0, 0.3, 1.0):
        way.at(share)
        if share == 0:
            torch.testing.assert_close(logits(model, ids), given)
    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_it_is_the_way_that_blends_go(build_model, adapter):
    base = build_model("llama")
    model = copy.deepcopy(base)
    if adapter:
        model = with_lora(model, LoraSettings(dropout=0.0), 0)
    way = Between(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    expected = dict(blended(base, model, 0.4).named_parameters())
    way.at(0.4)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, expected[name])
