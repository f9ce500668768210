"""What cannot be loaded is said with the setting, the value and what to do."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, MambaConfig

from afterword.errors import CheckpointError
from afterword.models import (
    check_weights,
    context_length,
    load_config,
    load_model,
    load_tokenizer,
    saved_dtype,
    weights_fingerprint,
)

LOADERS = pytest.mark.parametrize("load", [load_model, load_config, load_tokenizer])


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the tiny model, to be damaged."""
    return shutil.copytree(model_folder, tmp_path / "model")


def refused(load, folder):
    with pytest.raises(CheckpointError) as caught:
        load(str(folder))
    assert str(caught.value).startswith("model_name_or_path: ")
    assert str(folder) in str(caught.value)
    return str(caught.value)


@LOADERS
def test_a_missing_folder(load, tmp_path):
    assert "is no folder. Give a folder with config.json" in refused(load, tmp_path / "nothing")


@LOADERS
def test_a_folder_without_a_config(load, folder):
    (folder / "config.json").unlink()
    assert "has no config.json, so it holds no model. Give a folder written by save_pretrained" in refused(load, folder)


@LOADERS
def test_a_file_in_the_place_of_a_folder(load, folder):
    assert "is a file, and no GGUF file" in refused(load, folder / "config.json")


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights (no *.safetensors file). Copy the weights" in refused(load_model, folder)


def test_weights_that_are_only_pickles(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    message = refused(load_model, folder)
    assert "only as pickles (pytorch_model.bin), which can run code" in message
    assert "Convert them" in message


@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_weights_that_are_cut_off(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "the model of" in refused(load_model, folder)
    assert "cannot be loaded" in refused(load_model, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    message = refused(load_model, folder)
    assert "non-finite values in model.layers.1.mlp.up_proj.weight. The weights are damaged; get them again" in message


def test_weights_of_another_shape(folder):
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"] = torch.ones(7)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(load_model, folder)


@pytest.mark.parametrize("text", ["garbage", '{"version": "1.0"}', '{"version": '])
def test_a_broken_tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(text)
    assert "the tokenizer of" in refused(load_tokenizer, folder)


@pytest.mark.parametrize("text", ["garbage", "{}", '{"model_type": "nothing-we-know"}'])
def test_a_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    assert "the configuration of" in refused(load_config, folder)


def test_a_whole_folder_is_loaded_in_float32_by_default(folder, build_model):
    model = load_model(str(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for name, value in build_model("llama").state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert len(load_tokenizer(str(folder))) == 300


def test_a_model_is_loaded_in_the_precision_asked_for(folder):
    model = load_model(str(folder), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_finite_weights_pass(build_model):
    check_weights(build_model("llama"), "m")


@pytest.mark.parametrize(("limit", "asked", "expected"), [(256, None, 256), (131072, None, 8192), (256, 64, 64)])
def test_the_context_is_what_was_asked_or_the_models_up_to_8192(limit, asked, expected):
    assert context_length(LlamaConfig(max_position_embeddings=limit), asked) == expected


def test_a_model_without_a_limit_gets_the_default_context():
    assert context_length(MambaConfig()) == 8192


def test_the_saved_precision_is_the_configs(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert saved_dtype(load_config(str(folder))) == torch.bfloat16
    assert saved_dtype(SimpleNamespace(dtype=None)) == torch.float32


def test_a_fingerprint_survives_saving_and_loading(build_model, tmp_path):
    model = build_model("llama")
    model.save_pretrained(tmp_path)
    assert weights_fingerprint(load_model(str(tmp_path))) == weights_fingerprint(model)


def test_a_fingerprint_changes_with_any_weight(build_model):
    model = build_model("llama")
    seen = {weights_fingerprint(model), weights_fingerprint(build_model("llama", seed=1))}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(1e-3)
        seen.add(weights_fingerprint(model))
    assert len(seen) == 2 + len(list(model.parameters()))
