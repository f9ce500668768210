"""The folder of an adapter is a model like any other: merged into its base; one that is not whole is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import afterword
from afterword.errors import CheckpointError
from afterword.models import LoraSettings, load_adapted, load_config, load_model, load_tokenizer, saved_dtype, with_lora

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(model_folder, tmp_path, perturb):
    """The folder of an adapter on the tiny model, far enough from it to be seen."""
    adapted = perturb(with_lora(load_model(str(model_folder)), LoraSettings(r=4, alpha=8), seed=0))
    adapted.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def edited(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder):
    for load in (load_model, load_adapted):
        with pytest.raises(CheckpointError) as caught:
            load(str(folder))
        assert repr(str(folder)) in str(caught.value)
    return str(caught.value)


def logits(model):
    with torch.inference_mode():
        return model(input_ids=torch.arange(12)[None]).logits


def test_merged_it_says_what_base_and_adapter_say_together(adapter, model_folder):
    together, merged, base = load_adapted(str(adapter)), load_model(str(adapter)), load_model(str(model_folder))
    assert not hasattr(merged, "peft_config")
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert torch.allclose(logits(merged), logits(together), atol=1e-4)
    assert not torch.allclose(logits(merged), logits(base), atol=1e-2)


def test_what_belongs_to_the_base_is_the_bases(adapter, model_folder):
    assert load_config(str(adapter)).to_dict() == load_config(str(model_folder)).to_dict()
    assert saved_dtype(load_config(str(adapter))) == saved_dtype(load_config(str(model_folder)))
    assert len(load_tokenizer(str(adapter))) == 300
    assert load_model(str(adapter), dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("text", ["{", "[]", "{}", "", '{"base_model_name_or_path": null}'])
def test_a_broken_configuration(adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    assert "is an adapter whose adapter_config.json" in refused(adapter)


def test_another_rank(adapter):
    edited(adapter, r=2)
    assert "does not fit its base" in refused(adapter)


def test_tensors_that_are_missing(adapter):
    save_file(dict(list(load_file(adapter / WEIGHTS).items())[:2]), adapter / WEIGHTS)
    assert "lacks 26 of its 28 tensors" in refused(adapter)


def test_tensors_that_nothing_uses(adapter):
    edited(adapter, target_modules=["q_proj"])
    assert "that its configuration or base has no place for" in refused(adapter)


def test_a_base_that_is_gone(adapter):
    edited(adapter, base_model_name_or_path="./gone")
    assert "is an adapter on './gone', which cannot be loaded: './gone' is no folder" in refused(adapter)


def test_it_is_taught_further_and_measured_from_where_it_was(adapter, tmp_path, documents):
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    run = afterword.adapt(
        adapter, tmp_path / "more.jsonl", method="disc", output_dir=tmp_path / "run", max_steps=1, learning_rate=1e-9
    )
    start, end = load_model(str(adapter)).state_dict(), load_model(str(run.path)).state_dict()
    assert (run.path / "config.json").is_file()
    for name, value in end.items():
        assert torch.allclose(value, start[name], atol=1e-6), name
    scores = afterword.evaluate(run.path, max_documents=2, samples=0)
    assert scores.reference == str(adapter)
    assert all(abs(score.change.value) < 1e-3 for score in scores.scores if score.change)


def test_an_adapter_on_an_adapter_cannot_go_on(adapter, tmp_path, documents):
    above = shutil.copytree(adapter, tmp_path / "above")
    edited(above, base_model_name_or_path=str(adapter))
    with pytest.raises(CheckpointError, match=r"which is an adapter too\. Merge that one first"):
        afterword.adapt(above, documents, output_dir=tmp_path / "run", use_peft=True, preset="disc-paper")
    assert not (tmp_path / "run").exists()


def test_tasks_refuse_an_adapter_on_an_adapter(adapter, tmp_path):
    from afterword.models import adapter_folder

    above = shutil.copytree(adapter, tmp_path / "above")
    edited(above, base_model_name_or_path=str(adapter))
    with pytest.raises(CheckpointError, match="which is an adapter too"):
        adapter_folder(str(above))
