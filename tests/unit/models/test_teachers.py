"""The teacher is the model as it was given, whatever the student has become."""

import numpy as np
import pytest
import torch

from afterword.data.batching import build_batch
from afterword.errors import ConfigError
from afterword.models import (
    AdapterOff,
    FrozenCopy,
    LoraSettings,
    freeze,
    head_of,
    refuse_unsafe_adapters,
    teacher_for,
    trained_states,
    with_lora,
)
from afterword.types import Example, Segment


@pytest.fixture(scope="module")
def view():
    """Two packed texts, trained at every position."""
    rng, examples = np.random.default_rng(0), []
    for length in (9, 14):
        ids, positions = rng.integers(5, 300, length), np.arange(length - 1)
        weights = np.ones(length - 1, np.float32)
        examples.append(Example("d", 0, None, (Segment(ids, positions, positions, ids[1:], weights),)))
    return build_batch(examples).student


def states(model, view):
    model.eval()
    with torch.no_grad():
        return trained_states(model, view)


def lora(model, **settings):
    return with_lora(model, LoraSettings(r=4, alpha=8, **settings), seed=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"modules_to_save": ("lm_head",)}, {"modules_to_save": ("embed_tokens",)}, {"use_dora": True}],
    ids=["plain", "head", "embedding", "dora"],
)
def test_adapter_off_is_the_model_before_its_adapters(settings, build_model, perturb, view):
    # Dropout of the model's own, too: the teacher reads without any.
    model = build_model("llama", attention_dropout=0.5)
    before, weight = states(model, view), model.lm_head.weight.detach().clone()
    adapted = perturb(lora(model, dropout=0.5, **settings)).train()
    teacher = teacher_for(adapted)
    assert isinstance(teacher, AdapterOff)
    found = teacher.trained_states(view)
    torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-6)
    assert torch.equal(teacher.head().weight, weight)
    assert not found.requires_grad
    # The student is left as it was: in training mode, its adapter on.
    assert adapted.training
    assert (states(adapted, view) - before).abs().max() > 0.01


def test_a_student_with_a_head_of_its_own_is_read_through_it(build_model, perturb):
    adapted = perturb(lora(build_model("llama"), modules_to_save=("lm_head",)))
    assert not torch.equal(head_of(adapted).weight, head_of(adapted, adapted=False).weight)
    assert head_of(adapted).weight.requires_grad


def test_fresh_adapters_change_nothing_and_depend_on_the_seed_alone(build_model, view):
    before = states(build_model("llama"), view)
    first, again = (lora(build_model("llama")) for _ in range(2))
    other = with_lora(build_model("llama"), LoraSettings(r=4, alpha=8), seed=1)
    torch.testing.assert_close(states(first, view), before)
    own = {name: value for name, value in first.state_dict().items() if "lora_A" in name}
    assert own
    assert all(torch.equal(again.state_dict()[name], value) for name, value in own.items())
    assert not any(torch.equal(other.state_dict()[name], value) for name, value in own.items())


def test_making_adapters_leaves_the_global_generator_alone(build_model):
    model, before = build_model("llama"), torch.get_rng_state()
    lora(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_copy_stays_when_the_student_moves(build_model, perturb, view):
    model = build_model("llama")
    before, teacher = states(model, view), teacher_for(model)
    assert isinstance(teacher, FrozenCopy)
    perturb(model)
    torch.testing.assert_close(teacher.trained_states(view), before)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher.model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_teacher_may_be_in_another_precision(build_model, view):
    teacher = freeze(build_model("llama").to(torch.bfloat16))
    assert teacher.trained_states(view).dtype == torch.bfloat16
    assert teacher.head().weight.dtype == torch.bfloat16


def test_a_frozen_model_is_the_teacher_itself(build_model):
    model = build_model("llama").train()
    teacher = freeze(model)
    assert teacher.model is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_adapter_on_the_head_is_refused(build_model):
    with pytest.raises(ConfigError, match="lora_target_modules: an adapter on the output head"):
        lora(build_model("llama"), target_modules=("q_proj", "lm_head"))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_refused(build_model, bias):
    with pytest.raises(ConfigError, match=f"lora_bias: '{bias}' trains biases"):
        lora(build_model("qwen2"), bias=bias)


def test_modules_that_the_model_does_not_have_are_refused(build_model):
    with pytest.raises(ConfigError, match=r"lora_target_modules: \('nothing',\) does not fit a llama model"):
        lora(build_model("llama"), target_modules=("nothing",))


@pytest.mark.parametrize(("name", "expected"), [("lm_heads", "Did you mean lm_head?"), ("nothing", "It has act_fn,")])
def test_whole_modules_that_the_model_does_not_have_are_refused(build_model, name, expected):
    with pytest.raises(ConfigError) as caught:
        lora(build_model("llama"), modules_to_save=("embed_tokens", name))
    (problem,) = caught.value.problems
    assert problem.startswith(f"lora_modules_to_save: the model has no '{name}'. ")
    assert expected in problem
    assert "embed_tokens, " in problem


def test_modules_trained_whole_may_be_named_by_their_path(build_model):
    adapted = lora(build_model("llama"), modules_to_save=("model.embed_tokens",))
    assert any("embed_tokens.modules_to_save" in name for name, _ in adapted.named_parameters())


@pytest.mark.parametrize("modules", [(), ("lm_head",), ("embed_tokens",), ("embed_tokens", "lm_head")])
def test_modules_trained_whole_are_accepted(build_model, modules):
    adapted = lora(build_model("llama"), modules_to_save=modules)
    refuse_unsafe_adapters(adapted)
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert all(any(module in name for name in trained) for module in modules)


def test_all_linear_is_every_linear_layer_but_the_head(build_model):
    adapted = lora(build_model("llama"))
    found = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
