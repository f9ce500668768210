"""A model's files: the precision of every tensor, by the names that it has in memory."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from afterword.models import (
    Precisions,
    StoredModel,
    load_model,
    rounds,
    save_result,
    settle,
    stored_precisions,
    trained_from,
)

ROUTED = {"moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
ROUTED |= {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8}
ROUTED |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 4}
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1}


@pytest.fixture
def half(model_folder, tmp_path):
    """The tiny model in bfloat16, one of its tensors in float32."""
    load_model(str(model_folder), dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    file = tmp_path / "half" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-4
    save_file(tensors, file, metadata={"format": "pt"})
    return tmp_path / "half"


@pytest.fixture
def routed(tmp_path, tokenizer):
    """Experts, which are one tensor in memory and many in the files, and a bias of theirs in float32."""
    torch.manual_seed(0)
    config = transformers.DeepseekV3Config(**SIZES, **ROUTED, dtype="bfloat16")
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    for name, buffer in model.named_buffers():
        if "correction_bias" in name:
            buffer.data = torch.tensor([4.0061, 4.0038, 4.0064, 4.0047])
    model.save_pretrained(tmp_path / "routed")
    tokenizer.save_pretrained(tmp_path / "routed")
    return tmp_path / "routed"


def test_a_tensor_that_is_wider_than_the_others_stays_so(half, tokenizer, tmp_path):
    model, stored = load_model(str(half)), StoredModel(str(half))
    precisions = stored_precisions(model, stored)
    assert precisions == Precisions(torch.bfloat16, {"model.norm.weight": torch.float32})
    (tmp_path / "run").mkdir()
    save_result(model, tokenizer, tmp_path / "run", dtype=precisions, given=stored)
    before, after = (load_file(folder / "model.safetensors") for folder in (half, tmp_path / "run"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert (after[name].dtype, torch.equal(after[name], value)) == (value.dtype, True), name
    assert json.loads((tmp_path / "run/config.json").read_text())["dtype"] == "bfloat16"


def test_what_training_in_bfloat16_rounded_and_did_not_change_is_saved_as_it_was(half, tokenizer, tmp_path):
    state = load_file(half / "model.safetensors")
    state["model.norm.weight"] = torch.rand(state["model.norm.weight"].shape)
    save_file(state, half / "model.safetensors", metadata={"format": "pt"})
    model, stored = load_model(str(half), dtype=torch.bfloat16), StoredModel(str(half))
    precisions = stored_precisions(model, stored)
    for trained in (False, True):
        if trained:
            model.model.norm.weight.data += 0.5
        (run := tmp_path / f"run-{trained}").mkdir()
        save_result(model, tokenizer, run, dtype=precisions, given=stored)
        after = load_file(run / "model.safetensors")["model.norm.weight"]
        expected = model.model.norm.weight.float() if trained else state["model.norm.weight"]
        assert after.dtype == torch.float32
        assert torch.equal(after, expected)


def test_tensors_of_several_files_are_found(half, tmp_path):
    load_model(str(half), dtype=torch.bfloat16).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    stored, whole = StoredModel(str(tmp_path / "shards")), StoredModel(str(half))
    assert stored.dtypes.keys() == whole.dtypes.keys()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(stored.tensor(name), whole.tensor(name))


def test_experts_and_their_bias_come_back_each_in_its_own_precision(routed, tokenizer, tmp_path):
    model, stored = load_model(str(routed)), StoredModel(str(routed))
    precisions = stored_precisions(model, stored)
    assert {name.rpartition(".")[2] for name in precisions.others} == {"e_score_correction_bias"}
    assert rounds(model, precisions)
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Of one tensor of each kind: half a step of bfloat16, which is lost; and two, which are not.
            if "experts" in name:
                value.mul_(1 + 2.0**-6)
    found, precisions = settle(trained_from(model, stored))
    assert found.nearest
    # The experts were compared, as the files have them.
    assert found.nearest.changed_frac > 0.1
    (tmp_path / "run").mkdir()
    save_result(model, tokenizer, tmp_path / "run", dtype=precisions, given=stored)
    before, after = (load_file(folder / "model.safetensors") for folder in (routed, tmp_path / "run"))
    assert before.keys() == after.keys()
    bias = next(name for name in before if "correction_bias" in name)
    assert after[bias].dtype == torch.float32
    assert torch.equal(after[bias], before[bias])


def test_the_configuration_of_what_was_given_is_kept(half, tokenizer, tmp_path):
    file = half / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token_id": 5, "use_cache": True}))
    (half / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.6}))
    model, stored = load_model(str(half)), StoredModel(str(half))
    # As a trainer leaves it.
    model.config.pad_token_id, model.config.use_cache = 1, False
    (tmp_path / "run").mkdir()
    save_result(model, tokenizer, tmp_path / "run", dtype=stored_precisions(model, stored), given=stored)
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert (saved["pad_token_id"], saved["use_cache"]) == (5, True)
    assert (tmp_path / "run/generation_config.json").read_bytes() == (half / "generation_config.json").read_bytes()
    # A checkpoint of the model in memory can be written too.
    model.save_pretrained(tmp_path / "checkpoint")


def test_settings_of_generation_appear_only_where_there_were_some(half, tokenizer, tmp_path):
    (half / "generation_config.json").unlink()
    (tmp_path / "run").mkdir()
    stored = StoredModel(str(half))
    save_result(load_model(str(half)), tokenizer, tmp_path / "run", dtype=torch.float32, given=stored)
    assert not (tmp_path / "run/generation_config.json").exists()
