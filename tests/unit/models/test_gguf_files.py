"""GGUF files as models: the weights, the tokenizer and the chat template come along; what cannot be read is said."""

import json
import shutil

import pytest
import torch

from afterword.errors import CheckpointError
from afterword.models import gguf_files as dequantising
from afterword.models import load_config, load_model, load_tokenizer, model_folder, saved_dtype


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def model(build_model):
    return build_model("llama")


@pytest.fixture
def file(tmp_path, model, write_gguf):
    return write_gguf(tmp_path / "tiny.gguf", model)


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        load_model(str(path))
    assert str(caught.value).startswith("model_name_or_path: ")
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_weights_of_a_float_file_are_the_models(file, model):
    loaded = load_model(str(file)).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    assert saved_dtype(load_config(str(file))) == torch.float32


def test_a_quantised_file_is_near_and_is_kept_in_16_bits(tmp_path, model, write_gguf, capsys):
    file = write_gguf(tmp_path / "tiny.gguf", model, kind="Q8_0")
    loaded = load_model(str(file)).state_dict()
    assert saved_dtype(load_config(str(file))) == torch.bfloat16
    for name, value in model.state_dict().items():
        # Half a step of eight bits, and the rounding to bf16.
        assert torch.allclose(loaded[name], value, atol=float(value.abs().max()) * (0.5 / 127 + 2**-8)), name
    said = capsys.readouterr().err
    assert "dequantised from Q8_0 into an ordinary bfloat16 checkpoint" in said
    assert "does not come back" in said


def test_the_tokenizer_and_the_chat_template_come_along(file, tokenizer):
    text, loaded = "Mara Lind moved to Bergen in 2019.", load_tokenizer(str(file))
    assert loaded(text, add_special_tokens=False).input_ids == tokenizer(text, add_special_tokens=False).input_ids
    assert loaded.eos_token == "</s>"
    assert loaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi</s>"


def test_every_token_that_ends_a_turn_ends_generation(tmp_path, model, write_gguf):
    file = write_gguf(tmp_path / "tiny.gguf", model, tokenizer__ggml__eot_token_id=7)
    assert load_model(str(file)).generation_config.eos_token_id == [1, 7]


def test_a_file_is_read_once_and_found_by_its_content(file, tmp_path, monkeypatch, capsys):
    first = model_folder(str(file))
    assert "dequantised" in capsys.readouterr().err
    monkeypatch.setattr(dequantising, "written_as_folder", None)
    copy = shutil.copy(file, tmp_path / "elsewhere.gguf")
    assert model_folder(str(copy)) == first
    assert capsys.readouterr().err == ""


def test_a_changed_file_is_another_model(file, model, perturb, write_gguf, tmp_path):
    first = model_folder(str(file))
    write_gguf(file, perturb(model))
    assert model_folder(str(file)) != first


def test_a_folder_that_was_damaged_is_made_anew(file, cache):
    folder = model_folder(str(file))
    with open(f"{folder}/config.json", "a") as config:
        config.write(" ")
    assert json.loads(load_config(str(file)).to_json_string())["hidden_size"] == 32
    with open(f"{folder}/config.json") as config:
        assert not config.read().endswith(" ")


@pytest.mark.parametrize("kept", [0, 3, 200, 20_000])
def test_a_file_that_is_cut_off(file, kept, cache):
    file.write_bytes(file.read_bytes()[:kept])
    assert "is damaged, or no GGUF file" in refused(file)
    assert not [path for path in cache.iterdir() if path.is_dir() and path.name != "seen"]


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "notes.gguf").write_text("These are notes. " * 1000)
    assert "is damaged, or no GGUF file" in refused(tmp_path / "notes.gguf")


def test_an_architecture_that_is_not_read(tmp_path, model, write_gguf):
    file = write_gguf(tmp_path / "tiny.gguf", model, architecture="rwkv7")
    message = refused(file)
    assert "of the architecture 'rwkv7', which transformers does not read from GGUF" in message
    assert "Give its original folder" in message


@pytest.mark.parametrize("name", ["tiny-00001-of-00003.gguf", "tiny.gguf"])
def test_one_part_of_a_file(tmp_path, model, write_gguf, name):
    file = write_gguf(tmp_path / name, model, split__count=3)
    assert "is one of 3 parts of a GGUF file. Join them" in refused(file)


def test_positions_that_are_stretched_in_an_unknown_way(tmp_path, model, write_gguf):
    file = write_gguf(tmp_path / "tiny.gguf", model, llama__rope__scaling__type="yarn")
    assert "stretches its positions" in refused(file)


def test_a_file_without_all_weights(tmp_path, model, write_gguf):
    model.model.layers = model.model.layers[:1]
    file = write_gguf(tmp_path / "tiny.gguf", model)
    assert "without the weights model.layers.1" in refused(file)


def test_a_folder_of_gguf_files_says_which_file_to_give(file):
    message = refused(file.parent)
    assert "holds GGUF files and no config.json. Give one of the files" in message
    assert str(file) in message


def test_positions_of_llama_3_are_read():
    factor, theta, pairs = 8.0, 500000.0, 64
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **dequantising._LLAMA3}
    size = {"hidden_size": 128 * 4, "num_attention_heads": 4, "max_position_embeddings": 131072}
    stretched = LlamaConfig(**size, rope_parameters=rope)
    plain = theta ** -(torch.arange(pairs) / pairs)
    factors = (plain / ROPE_INIT_FUNCTIONS["llama3"](stretched, "cpu")[0]).numpy()
    config = LlamaConfig(**size, rope_parameters={"rope_type": "default", "rope_theta": theta})
    dequantising._scale_positions(config, factors, {"general.architecture": "llama"}, "m.gguf")
    assert config.rope_parameters == rope
    with pytest.raises(CheckpointError, match="stretches its positions"):
        dequantising._scale_positions(config, factors * 1.1, {"general.architecture": "llama"}, "m.gguf")


def test_a_cache_that_cannot_be_written(file, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path / "taken"))
    with pytest.raises(CheckpointError, match=r"the cache .* cannot be written .* set AFTERWORD_CACHE"):
        load_model(str(file))
    monkeypatch.setenv("AFTERWORD_CACHE", "off")
    with pytest.raises(CheckpointError, match="AFTERWORD_CACHE: 'off' leaves no place"):
        load_model(str(file))
