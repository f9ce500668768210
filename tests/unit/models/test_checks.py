"""A backbone and a head are together the model; packing is trusted only where it was seen to hold."""

import numpy as np
import pytest
import torch
import transformers

from afterword.data.batching import Packing, build_batch
from afterword.errors import CheckpointError
from afterword.models import (
    LoraSettings,
    backbone_of,
    causal_lm,
    check_head,
    has_bfloat16,
    head_of,
    packs_cleanly,
    resolved_precision,
    trained_states,
    trained_states_through,
    with_lora,
)
from afterword.types import Example, Segment

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "olmo2", "mistral", "phi3", "gpt_neox")
SIZE = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
CONTAMINATING = {
    "opt": lambda: transformers.OPTConfig(
        **SIZE, ffn_dim=48, num_attention_heads=4, word_embed_proj_dim=32, max_position_embeddings=64
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4),
    "falcon_alibi": lambda: transformers.FalconConfig(**SIZE, num_attention_heads=4, alibi=True),
}


def view_of(*lengths, layout="packed"):
    rng, examples = np.random.default_rng(0), []
    for length in lengths:
        ids, positions = rng.integers(5, 300, length), np.arange(1, length - 1)
        weights = np.ones(length - 2, np.float32)
        examples.append(Example("d", 0, None, (Segment(ids, positions, positions, ids[2:], weights),)))
    return build_batch(examples, Packing(100_000, layout, real_share=0.0)).student


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_packed_texts_are_kept_apart(kind, build_model):
    assert packs_cleanly(build_model(kind))


@pytest.mark.parametrize("kind", CONTAMINATING)
def test_an_architecture_that_reads_across_borders_is_found(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONTAMINATING[kind]())
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    assert not packs_cleanly(model)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_hidden_states_times_head_are_the_models_logits(kind, build_model):
    model, view = build_model(kind).eval(), view_of(11)
    check_head(model)
    with torch.no_grad():
        ours = head_of(model).logits(trained_states(model, view))
        theirs = model(input_ids=view.input_ids).logits[0, 1:-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "setting", [{"logit_scale": 2.0}, {"logits_scaling": 4.0}, {"final_logit_softcapping": 1.0}], ids=str
)
def test_a_head_that_is_not_the_models_is_found(setting, build_model):
    # Llama reads none of these, so a head that does is wrong.
    with pytest.raises(CheckpointError, match="a llama model does something to its logits"):
        check_head(build_model("llama", **setting))


def test_a_bias_that_the_model_adds_in_silence_is_found(build_model):
    model = build_model("llama")
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + 1.0)
    with pytest.raises(CheckpointError, match="model_name_or_path"):
        check_head(model)


def test_scales_and_caps_of_the_config_are_in_the_head(build_model):
    assert head_of(build_model("gemma3")).softcap == 5.0
    assert head_of(build_model("llama", logit_scale=0.5)).scale == 0.5
    assert head_of(build_model("llama", logits_scaling=4.0)).scale == 0.25
    plain = head_of(build_model("llama"))
    assert (plain.scale, plain.softcap, plain.bias) == (1.0, None, None)


@pytest.mark.parametrize("check", [check_head, packs_cleanly])
@pytest.mark.parametrize("training", [True, False])
def test_checks_leave_the_model_in_its_mode(check, training, build_model):
    model = build_model("llama").train(training)
    check(model)
    assert model.training is training


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_forward_through_the_wrapped_model_gives_the_same_states(kind, layout, build_model):
    model, view = build_model(kind).eval(), view_of(11, 7, layout=layout)
    with torch.no_grad():
        straight = trained_states(model, view)
        through = trained_states_through(model, model, view)
    assert straight.shape == (9 + 5, 32)
    torch.testing.assert_close(through, straight)
    assert not backbone_of(model)._forward_hooks


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_packed_and_padded_rows_give_the_states_of_texts_alone(kind, build_model):
    model = build_model(kind).eval()
    with torch.no_grad():
        packed, padded = (trained_states(model, view_of(11, 7, layout=layout)) for layout in ("packed", "padded"))
        first = trained_states(model, view_of(11))
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed[:9], first, rtol=1e-4, atol=1e-4)


def test_a_wrapped_model_is_unwrapped(build_model):
    model = build_model("llama")
    backbone = model.model
    adapted = with_lora(model, LoraSettings(r=2), seed=0)
    assert causal_lm(adapted) is model
    assert causal_lm(model) is model
    assert backbone_of(adapted) is backbone_of(model) is backbone


@pytest.mark.parametrize("check", [check_head, packs_cleanly])
def test_a_model_whose_kernel_is_one_of_a_gpu_is_checked_there_and_comes_back(check, build_model, monkeypatch):
    model, moves = build_model("llama"), []
    monkeypatch.setattr("afterword.models.checks._kernel", lambda model: "flex_attention")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(model, "to", moves.append)
    assert check(model) in (None, True)
    assert moves == ["cuda", "cpu"]


def test_a_model_of_another_kernel_is_checked_where_it_is(build_model, monkeypatch):
    model = build_model("llama")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(model, "to", lambda device: pytest.fail(f"moved to {device}"))
    assert packs_cleanly(model)


@pytest.mark.parametrize("itself", [True, False])
def test_bfloat16_that_a_gpu_only_imitates_is_not_chosen(itself, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: itself or including_emulation)
    assert has_bfloat16() is itself
    for model in ("model", None):
        assert resolved_precision("auto", model) == ("bf16_mixed" if itself else "float32")
        assert resolved_precision("float32", model) == "float32"


def test_fresh_adapters_give_no_gpu_a_context_that_the_model_does_not_use(build_model, monkeypatch):
    model, forked, fork = build_model("llama"), [], torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=None: forked.append(devices) or fork(devices))
    with_lora(model, LoraSettings(), seed=0)
    assert forked == [[]]
