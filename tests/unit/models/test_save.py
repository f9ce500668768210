"""Results are ordinary folders: in the input's precision, loadable by transformers and peft as they are."""

from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from afterword.models import (
    LoraSettings,
    configuration_sha256,
    content_sha256,
    has_result,
    load_adapted,
    load_model,
    save,
    save_result,
    weights_fingerprint,
    with_lora,
)

IDS = torch.tensor([[0, 17, 200, 31, 5, 99]])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.fixture
def adapted(model_folder, perturb):
    """The tiny model with adapters that do something."""
    return perturb(with_lora(load_model(str(model_folder)), LoraSettings(r=4, alpha=8), seed=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_full_model_is_written_in_the_precision_asked_for(dtype, build_model, tokenizer, tmp_path):
    model = build_model("llama")
    save_result(model, tokenizer, tmp_path, dtype=dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {dtype}
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.to(dtype).float()), name
    # The model that is still in memory keeps its own precision.
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_tokenizer_is_written_beside_the_model(build_model, tokenizer, tmp_path):
    save_result(build_model("llama"), tokenizer, tmp_path, dtype=torch.float32)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("Mara ran.").input_ids == tokenizer("Mara ran.").input_ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_stay_tied(dtype, build_model, tokenizer, tmp_path):
    save_result(build_model("llama", tie_word_embeddings=True), tokenizer, tmp_path, dtype=dtype)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_a_result_is_there_when_it_is_whole(build_model, tokenizer, tmp_path):
    assert not has_result(tmp_path)
    save_result(build_model("llama"), tokenizer, tmp_path, dtype=torch.float32)
    assert has_result(tmp_path)
    assert not any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    (tmp_path / "config.json").write_text("{}")
    assert not has_result(tmp_path)


def test_files_of_the_run_stay_where_they_are(build_model, tokenizer, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    save_result(build_model("llama"), tokenizer, tmp_path, dtype=torch.float32)
    (tmp_path / "metrics.jsonl").write_text("{}\n{}\n")
    assert has_result(tmp_path)
    save_result(build_model("llama", seed=1), tokenizer, tmp_path, dtype=torch.float32)
    assert has_result(tmp_path)


def test_adapters_are_loaded_by_peft(adapted, model_folder, tokenizer, tmp_path):
    save_result(adapted, tokenizer, tmp_path, dtype=torch.bfloat16)
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    before = logits(base)
    again = logits(peft.PeftModel.from_pretrained(base, tmp_path))
    torch.testing.assert_close(again, logits(adapted))
    assert (again - before).abs().max() > 0.01
    torch.testing.assert_close(logits(load_adapted(str(tmp_path))), again)


def test_a_merged_model_says_what_the_adapted_one_says(adapted, tokenizer, tmp_path):
    expected = logits(adapted)
    save_result(adapted, tokenizer, tmp_path, dtype=torch.float32, merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert has_result(tmp_path)


def test_a_merge_is_made_only_on_request(adapted, build_model, tokenizer, tmp_path):
    save_result(adapted, tokenizer, tmp_path / "adapter", dtype=torch.float32)
    save_result(build_model("llama"), tokenizer, tmp_path / "full", dtype=torch.float32, merge=True)
    assert not list(tmp_path.glob("*/merged"))


def test_a_full_model_is_served_as_it_is(model_folder):
    torch.testing.assert_close(logits(load_adapted(str(model_folder))), logits(load_model(str(model_folder))))


def used(config, **changes):
    """SHA-256 of a configuration, with changes."""
    model = SimpleNamespace(config=config(**changes))
    return configuration_sha256(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 1e-3},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"num_key_value_heads": 4},
        {"hidden_act": "gelu"},
        {"attention_dropout": 0.1},
        {"tie_word_embeddings": True},
        {"max_position_embeddings": 64},
    ],
)
def test_a_configuration_changes_with_what_the_model_says(changes):
    assert used(transformers.LlamaConfig, **changes) != used(transformers.LlamaConfig)


def test_a_configuration_changes_with_the_kind_of_model_and_with_a_part_of_it():
    assert used(transformers.Qwen2Config) != used(transformers.LlamaConfig)
    inner = {"text_config": transformers.Gemma3TextConfig(sliding_window=64)}
    assert used(transformers.Gemma3Config, **inner) != used(transformers.Gemma3Config)


def test_a_configuration_stays_with_what_changes_nothing():
    mute = {"name_or_path": "elsewhere", "architectures": ["LlamaForCausalLM"], "dtype": torch.bfloat16}
    mute |= {"use_cache": False, "output_hidden_states": True, "return_dict": False, "num_labels": 7}
    assert used(transformers.LlamaConfig, **mute) == used(transformers.LlamaConfig)
    inner = {"text_config": transformers.Gemma3TextConfig(dtype=torch.bfloat16, use_cache=False)}
    assert used(transformers.Gemma3Config, **inner) == used(transformers.Gemma3Config)
    # What a later version knows of, and this one leaves out.
    assert used(transformers.LlamaConfig, not_known_yet=None) == used(transformers.LlamaConfig)
    assert used(transformers.LlamaConfig, not_known_yet=1) != used(transformers.LlamaConfig)


@pytest.mark.parametrize(
    "kind", ["llama", "qwen3", "gemma3", "olmo2", "mistral", "phi3", "gpt_neox", "cohere", "granite"]
)
def test_what_a_model_says_is_the_same_saved_and_loaded(kind, build_model, tokenizer, tmp_path):
    model = build_model(kind)
    save_result(model, tokenizer, tmp_path, dtype=torch.float32)
    again = load_model(str(tmp_path))
    assert configuration_sha256(again) == configuration_sha256(model)
    assert content_sha256(again) == content_sha256(model)


def test_what_a_model_says_changes_with_every_value_and_with_its_configuration(build_model, monkeypatch):
    model = build_model("llama")
    seen = {content_sha256(model)}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        seen.add(content_sha256(model))
    model.config.rms_norm_eps = 0.5
    seen.add(content_sha256(model))
    model.model.register_buffer("scale", torch.ones(2))
    seen.add(last := content_sha256(model))
    assert len(seen) == 3 + len(list(model.parameters()))
    # However much of a weight is hashed at once.
    monkeypatch.setattr(save, "_CHUNK_VALUES", 7)
    assert content_sha256(model) == last
    every = torch.arange(12.0)
    assert save.weights_sha256([("x", every[::2])]) == save.weights_sha256([("x", every[::2].clone())])


def test_what_an_adapted_model_says_changes_with_its_adapters_configuration(adapted, tokenizer, tmp_path):
    save_result(adapted, tokenizer, tmp_path, dtype=torch.float32)
    again = load_adapted(str(tmp_path))
    assert content_sha256(again) == content_sha256(adapted)
    again.peft_config["default"].lora_alpha = 99
    assert content_sha256(again) != content_sha256(adapted)
    # peft keeps names of modules in sets, which every process orders anew.
    assert save._in_json({"v_proj", "q_proj", "down_proj"}) == ["down_proj", "q_proj", "v_proj"]


def test_a_sampled_fingerprint_sees_every_column():
    layer = torch.nn.Linear(12, 4096, bias=False)
    seen = {weights_fingerprint(layer)}
    for column in range(12):
        with torch.no_grad():
            layer.weight[:, column] += 1
        seen.add(weights_fingerprint(layer))
    assert len(seen) == 13


@pytest.mark.parametrize(
    ("name", "recorded"), [("almanac-base", "4f00719404408678"), ("almanac-chat", "61011569c9864ad6")]
)
def test_the_fingerprints_that_the_studies_rows_follow_from_stay(name, recorded):
    assert weights_fingerprint(load_model(name)) == recorded
