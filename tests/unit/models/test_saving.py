"""Results are ordinary folders: in the input's precision, loadable by transformers and peft as they are."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from afterword.models import LoraSettings, has_result, load_adapted, load_model, save_result, with_lora

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
