"""What a model's folder holds is taught whole, carried along, or refused by name before anything is read."""

import copy
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from afterword.data.batching import Packing, reading_groups
from afterword.errors import CheckpointError, ConfigError
from afterword.models import (
    LoraSettings,
    StoredModel,
    alone_beyond,
    check_head,
    context_length,
    load_config,
    load_model,
    packing_for,
    packs_cleanly,
    refuse_foreign_tokenizer,
    row_limit,
    stored_precisions,
    trained_states,
    trained_states_through,
    with_lora,
    write_model,
)
from afterword.models.checks import probe

SMALL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the tiny model, to be changed."""
    return shutil.copytree(model_folder, tmp_path / "model")


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(folder)


def written(folder, config, architecture):
    config.architectures = [architecture]
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "quantised",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
        {"quantization": {"group_size": 64, "bits": 4}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
    ],
)
@pytest.mark.parametrize("load", [load_config, load_model])
def test_quantised_checkpoints_name_what_to_give_instead(load, quantised, folder):
    with pytest.raises(CheckpointError, match=r"quantised checkpoint .* Give the checkpoint that it was made from"):
        load(edited(folder, **quantised))


@pytest.mark.parametrize(
    ("config", "architecture", "words"),
    [
        (transformers.T5Config(d_model=32), "T5ForConditionalGeneration", "encoder-decoder"),
        (transformers.BertConfig(), "BertForMaskedLM", "no head that predicts the next token"),
        (transformers.BertConfig(), "BertLMHeadModel", "both directions"),
        (transformers.XLNetConfig(), "XLNetLMHeadModel", "permutation"),
        (transformers.RobertaConfig(is_decoder=True), "RobertaForCausalLM", "more than a product"),
        (transformers.RwkvConfig(), "RwkvForCausalLM", "changes its own weights"),
        (transformers.LlamaConfig(), "LlamaForSequenceClassification", "no head that predicts"),
        (transformers.ViTConfig(), "ViTForImageClassification", "no causal language model"),
        (transformers.Qwen3_5Config(), "Qwen3_5ForConditionalGeneration", "vision"),
        (transformers.Llama4Config(), "Llama4ForConditionalGeneration", "vision"),
    ],
)
def test_what_cannot_be_taught_is_told_from_its_configuration(config, architecture, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        load_config(written(tmp_path, config, architecture))


@pytest.mark.parametrize("kind", ["gpt_neox", "llama"])
def test_causal_models_are_not_taken_for_others(kind, build_model, tmp_path):
    build_model(kind).save_pretrained(tmp_path)
    assert load_config(str(tmp_path)).model_type == kind


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_folder_cloned_without_its_large_files(file, folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 12345678\n"
    (folder / file).write_text(pointer)
    with pytest.raises(CheckpointError, match=rf"{file} is a pointer of Git LFS, not downloaded.*git lfs pull"):
        load_model(str(folder))


def add_tensor(folder, name, value):
    path = folder / "model.safetensors"
    save_file({**load_file(path), name: value}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["model.layers.9.mlp.up_proj.weight", "v_head.summary.weight", "score.weight"])
def test_weights_that_the_configuration_does_not_use_are_refused(name, folder):
    add_tensor(folder, name, torch.ones(2))
    with pytest.raises(CheckpointError, match=rf"does not use \({name}"):
        load_model(str(folder))


def test_tensors_that_follow_from_the_configuration_may_lie_there(folder):
    add_tensor(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(2))
    load_model(str(folder))


def test_what_a_class_does_not_read_is_carried_along_as_it_is(folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", [r"^mtp\."])
    add_tensor(folder, "mtp.head.weight", extra := torch.arange(4, dtype=torch.bfloat16))
    given, model = StoredModel(str(folder)), load_model(str(folder))
    write_model(model, tokenizer, tmp_path / "out", dtype=stored_precisions(model, given), given=given)
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["mtp.head.weight"], extra)


def test_the_files_of_a_processor_come_along(folder, tokenizer, tmp_path):
    names = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "LICENSE")
    for name in names:
        (folder / name).write_text(name)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("x")
    (folder / "metrics.jsonl").write_text("of a run\n")
    write_model(
        load_model(str(folder)), tokenizer, out := tmp_path / "out", dtype=torch.float32, given=StoredModel(str(folder))
    )
    assert [(out / name).read_text() for name in names] == list(names)
    assert (out / "additional_chat_templates" / "tool.jinja").exists()
    assert not (out / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "config",
    [
        transformers.Gemma3Config(text_config={"max_position_embeddings": 64}),
        transformers.GPT2Config(n_positions=64),
        transformers.MptConfig(max_seq_len=64),
        transformers.DbrxConfig(max_seq_len=64),
        transformers.LlamaConfig(max_position_embeddings=64),
    ],
)
def test_the_context_is_found_wherever_a_configuration_says_it(config):
    assert context_length(config) == 64
    with pytest.raises(ConfigError, match="more than the model's 64 positions"):
        context_length(config, 65)


def test_a_limit_that_is_none_is_no_limit():
    assert context_length(transformers.LlamaConfig(max_position_embeddings=-1)) == 8192


def test_rows_are_never_longer_than_what_a_mask_can_hold():
    sizes = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16}
    config = transformers.GPTNeoConfig(vocab_size=320, hidden_size=32, max_position_embeddings=64, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    packing = packing_for(model, 512, longest=40)
    assert (packing.layout, packing.micro_batch_tokens) == ("packed", 64)
    assert row_limit(transformers.Llama4TextConfig(attention_chunk_size=32)) == 32


LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


def test_a_text_that_turns_its_neighbours_is_read_alone():
    rope = {**LONG_ROPE, "original_max_position_embeddings": 16}
    of_phi = transformers.Phi3Config(**SMALL, rope_parameters=rope, original_max_position_embeddings=16, pad_token_id=0)
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert alone_beyond(of_phi) == 16
    assert alone_beyond(transformers.LlamaConfig(**SMALL, rope_parameters=dynamic)) == 64
    assert alone_beyond(transformers.LlamaConfig(**SMALL)) is None
    groups = [sorted(group) for group in reading_groups([40, 5, 12, 30, 9], Packing(512, alone_beyond=16))]
    assert sorted(groups) == [[0], [1, 2, 4], [3]]


def test_packed_updates_of_such_a_model_are_those_of_texts_one_by_one():
    config = transformers.Phi3Config(
        **SMALL,
        rope_parameters={**LONG_ROPE, "original_max_position_embeddings": 16},
        original_max_position_embeddings=16,
        pad_token_id=0,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert packs_cleanly(model)
    assert packing_for(model, 512).alone_beyond == 16


def test_tokens_without_an_embedding_matter_only_where_they_occur(build_model, tokenizer):
    model = build_model("llama")
    rows = model.get_input_embeddings().weight.shape[0]
    more = copy.deepcopy(tokenizer)
    more.add_tokens([f"<extra_{i}>" for i in range(rows)])
    refuse_foreign_tokenizer(more, model, "m")
    model(input_ids=torch.tensor([[5, 6]]))
    with pytest.raises(CheckpointError, match="They do not belong together"):
        model(input_ids=torch.tensor([[5, rows + 1]]))


def test_adapters_leave_out_what_a_kernel_takes(perturb):
    config = transformers.MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, state_size=8)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapted = with_lora(transformers.AutoModelForCausalLM.from_config(config), LoraSettings(), seed=0)
    assert any("no adapter on out_proj, conv1d" in str(each.message) for each in told)
    assert any("in_proj" in name for name, part in adapted.named_modules() if hasattr(part, "lora_A"))


def test_adapters_that_do_not_fit_name_layers_that_do():
    config = transformers.LlamaConfig(**SMALL)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ConfigError, match=r"Name some of its linear layers: down_proj, gate_proj"):
        with_lora(model, LoraSettings(target_modules=("nothing",)), seed=0)


def test_experts_that_are_no_layers_need_an_adapter_without_dropout():
    more = {"moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
    config = transformers.Dots1Config(**SMALL | more, first_k_dense_replace=0, n_group=1, topk_group=1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ConfigError, match="Give --lora-dropout 0"):
        with_lora(model, LoraSettings(), seed=0)


def test_adapters_that_are_not_found_again_once_saved_are_refused_before_training(build_model, monkeypatch):
    import peft

    read = peft.set_peft_model_state_dict

    def passes_over(model, state, **how):
        return read(model, {name: value for name, value in state.items() if "up_proj" not in name}, **how)

    model = build_model("llama")
    adapted = with_lora(build_model("llama"), LoraSettings(), seed=0)
    values = {name: value.clone() for name, value in adapted.named_parameters()}
    again = dict(with_lora(build_model("llama"), LoraSettings(), seed=0).named_parameters())
    assert all(torch.equal(value, again[name]) for name, value in values.items())
    assert all(not value.any() for name, value in values.items() if "lora_B" in name)
    monkeypatch.setattr(peft, "set_peft_model_state_dict", passes_over)
    with pytest.raises(ConfigError, match=r"does not find the adapter of model\.layers\.0\.mlp\.up_proj again"):
        with_lora(model, LoraSettings(), seed=0)


@pytest.mark.parametrize("kind", ["OPT", "Bart", "Llama4Text"])
def test_backbones_that_are_named_or_called_otherwise(kind):
    sizes = {
        "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "Bart": {"d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 48, "decoder_attention_heads": 4},
        "Llama4Text": {"intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 8},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **sizes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    check_head(model)
    view = probe(model, 9)
    with torch.no_grad():
        np.testing.assert_allclose(trained_states_through(model, model, view), trained_states(model, view), atol=1e-5)
