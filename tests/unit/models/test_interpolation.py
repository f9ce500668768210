"""Weights between a model and its adapted self: both ends to the bit, the middle by hand, adapters by their ΔW."""

import copy

import peft
import pytest
import torch

from afterword.errors import CheckpointError, ConfigError
from afterword.models import LoraSettings, blended, load_adapted, load_model, save_result, with_lora

IDS = torch.tensor([[0, 17, 200, 31, 5, 99]])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def full(build_model, perturb):
    """A model, and what moving every weight of it made."""

    def pair(kind="llama", **changes):
        base = build_model(kind, **changes)
        return base, perturb(copy.deepcopy(base))

    return pair


@pytest.fixture
def adapted(model_folder, perturb):
    """The tiny model with an adapter that does something."""

    def make(**lora):
        return perturb(with_lora(load_model(str(model_folder)), LoraSettings(r=4, alpha=8, **lora), seed=0))

    return make


@pytest.fixture
def base(model_folder):
    return load_model(str(model_folder))


@pytest.mark.parametrize("kind", ["llama", "phi"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_two_models_to_the_bit(share, kind, build_model):
    # Far apart, or θ0 + (θ − θ0) would be θ without care.
    pair = build_model(kind), build_model(kind, seed=1)
    states = [copy.deepcopy(model.state_dict()) for model in pair]
    blend = blended(*pair, share)
    for name, value in blend.state_dict().items():
        assert torch.equal(value, states[int(share)][name]), name
    # Neither of the two was touched.
    for model, state in zip(pair, states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("share", "expected"), [(0.5, [2.0, 0.0]), (0.25, [1.5, -1.0]), (1.5, [4.0, 4.0])])
def test_between_and_beyond_by_hand(share, expected, full):
    base, model = full()
    with torch.no_grad():
        base.model.norm.weight[:2] = torch.tensor([1.0, -2.0])
        model.model.norm.weight[:2] = torch.tensor([3.0, 2.0])
    assert blended(base, model, share).model.norm.weight[:2].tolist() == expected


def test_half_the_way_of_every_weight(full):
    base, model = full("gpt_neox")
    starts, ends = dict(base.named_parameters()), dict(model.named_parameters())
    for name, value in blended(base, model, 0.5).named_parameters():
        middle = (starts[name].double() + ends[name].double()) / 2
        torch.testing.assert_close(value.double(), middle, rtol=1e-6, atol=1e-7, msg=name)
        assert not torch.equal(value, ends[name]), name


def test_half_precision_is_rounded_once_at_the_end(full):
    base, model = full()
    model.to(torch.bfloat16)
    with torch.no_grad():
        # Half a step of bfloat16 above 1; and 256 + 0.3 · (1 − 256) = 179.5, where bfloat16 has only whole numbers.
        base.model.norm.weight[:2] = torch.tensor([1.0 + 2**-8, 256.0])
        model.model.norm.weight[:2] = torch.tensor([1.0 + 2**-7, 1.0])
    value = blended(base, model, 0.3).model.norm.weight
    assert value.dtype == torch.bfloat16
    expected = torch.tensor([1.0 + 0.7 * 2**-8 + 0.3 * 2**-7, 179.5])
    assert torch.equal(value[:2], expected.to(torch.bfloat16))


def test_tied_weights_are_moved_once_and_stay_tied(full, tokenizer, tmp_path):
    base, model = full(tie_word_embeddings=True)
    blend = blended(base, model, 0.5)
    assert blend.lm_head.weight is blend.model.embed_tokens.weight
    start, end = base.lm_head.weight, model.lm_head.weight
    torch.testing.assert_close(blend.lm_head.weight, (start + end) / 2)
    save_result(blend, tokenizer, tmp_path, dtype=torch.float32)
    torch.testing.assert_close(logits(load_model(str(tmp_path))), logits(blend))


def test_buffers_are_left_alone(full):
    base, model = full()
    for each, value in ((base, 2.0), (model, 3.0)):
        each.register_buffer("seen", torch.tensor(value))
    assert blended(base, model, 0.5).seen == 3.0


def by_hand(base, adapter, share, scale):
    """The base in float64 with share · scale · B·A added to every weight that has an adapter; whole modules between."""
    model, parts = copy.deepcopy(base).double(), adapter.get_base_model().state_dict()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            place = name.removesuffix(".weight")
            if (b := parts.get(f"{place}.lora_B.default.weight")) is not None:
                weight += share * scale * b.double() @ parts[f"{place}.lora_A.default.weight"].double()
            if (whole := parts.get(f"{place}.modules_to_save.default.weight")) is not None:
                weight += share * (whole.double() - weight)
    return model


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.5])
@pytest.mark.parametrize("whole", [(), ("lm_head",)])
def test_an_adapter_says_what_the_base_with_a_share_of_its_update_says(
    share, whole, base, adapted, tokenizer, tmp_path
):
    adapter = adapted(modules_to_save=whole)
    blend = blended(base, adapter, share)
    expected = logits(by_hand(base, adapter, share, scale=8 / 4))
    torch.testing.assert_close(logits(blend).double(), expected, rtol=1e-5, atol=1e-5)
    # What is saved is an adapter on the same base, and says the same.
    save_result(blend, tokenizer, tmp_path, dtype=torch.float32)
    again = load_adapted(str(tmp_path))
    assert isinstance(again, peft.PeftModel)
    torch.testing.assert_close(logits(again).double(), expected, rtol=1e-5, atol=1e-5)


def test_an_adapters_ends_are_exact(base, adapted):
    adapter = adapted(modules_to_save=("lm_head",))
    before = logits(adapter)
    assert torch.equal(logits(blended(base, adapter, 0.0)), logits(base))
    assert torch.equal(logits(blended(base, adapter, 1.0)), before)
    assert torch.equal(logits(adapter), before)
    assert (before - logits(base)).abs().max() > 0.01


def test_adapters_of_embeddings_are_scaled_too(base, adapted):
    adapter = adapted(target_modules=("embed_tokens",))
    parts = adapter.get_base_model().model.embed_tokens
    # peft starts the one factor of an embedding at zero.
    update = 2 * parts.lora_embedding_B["default"].double() @ parts.lora_embedding_A["default"].double()
    expected = copy.deepcopy(base).double()
    with torch.no_grad():
        expected.model.embed_tokens.weight += 0.3 * update.T
    assert update.abs().max() > 0.01
    torch.testing.assert_close(logits(blended(base, adapter, 0.3)).double(), logits(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "difference"),
    [
        ("qwen3", {}, "the base is a LlamaForCausalLM and it is a Qwen3ForCausalLM"),
        ("llama", {"num_hidden_layers": 3}, "model.layers.2.self_attn.q_proj.weight is missing in the base"),
        (
            "llama",
            {"num_hidden_layers": 1},
            "model.layers.1.self_attn.q_proj.weight is [32, 32] in the base and missing",
        ),
        ("llama", {"vocab_size": 301}, "model.embed_tokens.weight is [300, 32] in the base and [301, 32] in it"),
        ("llama", {"tie_word_embeddings": True}, "lm_head.weight is [300, 32] in the base and missing in it"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'silu' in the base and 'gelu' in it"),
        # The same shapes, and other heads.
        ("llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}, "num_attention_heads is 4"),
    ],
)
def test_models_with_nothing_between_them_are_refused_by_their_first_difference(kind, changes, difference, build_model):
    with pytest.raises(CheckpointError) as caught:
        blended(build_model("llama"), build_model(kind, **changes), 0.5)
    assert str(caught.value).startswith("adapted: nothing is between it and the base, because ")
    assert difference in str(caught.value)


def test_an_adapter_on_another_base_is_refused(base, adapted, build_model):
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight of the base is not"):
        blended(build_model("llama", seed=1), adapted(), 0.5)
    with pytest.raises(CheckpointError, match="Qwen3ForCausalLM"):
        blended(build_model("qwen3"), adapted(), 0.5)
    # A single weight is enough.
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight of the base"):
        blended(base, adapted(), 0.5)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True), "lora_magnitude_vector"),
        (peft.LoraConfig(target_modules=["q_proj"], trainable_token_indices=[3]), "trainable_tokens"),
        (peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "IA3"),
        (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PROMPT_TUNING"),
    ],
)
def test_adapters_that_no_factor_scales_are_refused(config, named, base, model_folder):
    adapter = peft.get_peft_model(load_model(str(model_folder)), config)
    with pytest.raises(ConfigError, match=f"adapted: .*{named}.*give the merged model"):
        blended(base, adapter, 0.5)


def test_adapters_that_train_biases_are_refused(build_model):
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], bias="all")
    with pytest.raises(ConfigError, match="lora_bias"):
        blended(build_model("qwen2"), peft.get_peft_model(build_model("qwen2"), config), 0.5)
