"""QLoRA: the 4 bits below an adapter are the student's and the teacher's, stay as they are, and are what is merged."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from afterword import CheckpointError, ConfigError, adapt, models
from afterword.budget.choice import read_corpora
from afterword.budget.yardstick import build_yardsticks
from afterword.data.batching import build_batch
from afterword.models import AdapterOff, FourBit, LoraSettings, load_adapted, said, trained_states, with_lora
from afterword.settings.adapt import read_settings
from afterword.training.checkpoints import Interrupted
from afterword.training.memory import bytes_of
from afterword.training.trainer import AdaptationTrainer
from afterword.types import Example, Segment

pytest.importorskip("bitsandbytes")

pytestmark = pytest.mark.usefixtures("unseen")
QLORA = {"use_peft": True, "load_in_4bit": True, "lora_r": 4}
RUN = {**QLORA, "max_steps": 4, "learning_rate": 3e-3, "lr_scheduler_type": "linear", "num_train_epochs": 1}


def in_4bit(folder: Path | str, **settings: Any) -> Any:
    return models.load_in_4bit(str(folder), FourBit(**settings), dtype=torch.float32)


def a_view() -> Any:
    ids = np.random.default_rng(0).integers(5, 300, 24)
    positions = np.arange(23)
    segment = Segment(ids, positions, positions, ids[1:], np.ones(23, np.float32))
    return build_batch([Example("d", 0, None, (segment,))]).student


def lora(model: Any, perturb: Any, **settings: Any) -> Any:
    return perturb(with_lora(model, LoraSettings(r=4, alpha=8, dropout=0.0, **settings), seed=0), seed=3)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of the adapter's weights, for a loss on hidden states; the teacher has read before, as in a step of DiSC."""
    AdapterOff(model).trained_states(a_view())
    model.train().zero_grad()
    trained_states(model, a_view()).square().mean().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_loss_and_gradients_are_those_of_a_float_base_of_the_same_values(
    settings: Any, model_folder: Path, perturb: Any
):
    quantised = lora(in_4bit(model_folder), perturb, **settings)
    plain = lora(models.dequantise(in_4bit(model_folder)), perturb, **settings)
    assert {weight.dtype for weight in plain.parameters()} == {torch.float32}
    torch.testing.assert_close(said(quantised), said(plain), rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(quantised), gradients(plain)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 20
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-7, msg=name)
        assert gradient.abs().max() > 0, name


def test_the_teacher_is_the_base_in_4_bits_and_reading_changes_nothing(model_folder: Path, perturb: Any):
    base = in_4bit(model_folder)
    with torch.no_grad():
        before = trained_states(base, a_view())
    fingerprint = models.content_sha256(base)
    adapted = lora(base, perturb)
    torch.testing.assert_close(AdapterOff(adapted).trained_states(a_view()), before, rtol=0, atol=0)
    assert models.content_sha256(adapted.unload()) == fingerprint
    exact = models.load_model(str(model_folder)).eval()
    with torch.no_grad():
        assert not torch.allclose(trained_states(exact, a_view()), before, atol=1e-2)


def test_what_is_held(model_folder: Path):
    exact, half = models.load_model(str(model_folder)), in_4bit(model_folder)
    layers = [layer for layer in exact.model.layers.modules() if isinstance(layer, torch.nn.Linear)]
    # Half a byte a value; of each 64 a scale of one byte, of 256 scales one of four; and for every layer the 16 and 256
    # values that bits stand for. (Small layers gain little.)
    values = [layer.weight.numel() for layer in layers]
    held = sum(n // 2 + -(-n // 64) + 4 * -(-n // 64 // 256) + 4 * (16 + 256) for n in values)
    assert bytes_of(exact.parameters()) - bytes_of(half.parameters()) == 4 * sum(values) - held
    assert models.size_of(half) == models.size_of(exact)
    assert half.get_input_embeddings().weight.dtype == torch.float32
    assert type(half.lm_head) is torch.nn.Linear
    kept = in_4bit(model_folder, kept=("up_proj",))
    assert type(kept.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert type(kept.lm_head) is torch.nn.Linear
    assert "up_proj" in models.four_bit_of(kept).kept
    assert models.four_bit_of(exact) is None


def test_damaged_weights_are_told_before_they_are_in_bits(model_folder: Path, tmp_path: Path):
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 2] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"non-finite values in model\.layers\.1\.mlp\.up_proj\.weight"):
        in_4bit(tmp_path)


def test_a_run_saves_its_adapter_and_merges_what_was_trained(model_folder: Path, documents: Any, tmp_path: Path):
    run = adapt(model_folder, documents, output_dir=tmp_path / "run", merge_adapter=True, method="disc", **RUN)
    assert not (run.path / "model.safetensors").exists()
    trained, merged = in_4bit(run.path), load_adapted(str(run.path / "merged"))
    torch.testing.assert_close(said(merged), said(trained), rtol=1e-4, atol=1e-4)
    # On the base in its own precision the same adapter says something else.
    assert not torch.allclose(said(load_adapted(str(run.path))), said(trained), atol=1e-2)
    saved = json.loads((run.path / "data.json").read_text())["saved"]
    assert "the 4 bits dequantised" in saved["sentence"]
    assert "quantization_config" not in json.loads((run.path / "merged/config.json").read_text())


def test_a_killed_run_goes_on_to_the_same_adapter(
    model_folder: Path, documents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, Any] = {**RUN, "lora_dropout": 0.2, "save_steps": 2, "teacher": "cached", "method": "disc"}
    through = adapt(model_folder, documents, output_dir=tmp_path / "through", **given)
    step = AdaptationTrainer.training_step

    def killed(self: Any, *args: Any, **named: Any) -> Any:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *args, **named)

    monkeypatch.setattr(AdaptationTrainer, "training_step", killed)
    with pytest.raises(Interrupted):
        adapt(model_folder, documents, output_dir=tmp_path / "stopped", **given)
    monkeypatch.undo()
    resumed = adapt(model_folder, documents, output_dir=tmp_path / "stopped", **given)
    assert resumed.resumed_from == 2
    ours, theirs = (load_file(run.path / "adapter_model.safetensors") for run in (through, resumed))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_drift_of_a_budget_begins_at_the_base_in_4_bits(model_folder: Path, documents: Any, tmp_path: Path):
    raw = {"model_name_or_path": str(model_folder), "output_dir": str(tmp_path / "run"), **QLORA}
    settings = read_settings(raw)
    with read_corpora(settings, documents) as corpora:
        (stick,) = build_yardsticks(settings, [corpora.measured], nullcontext)
    fresh = with_lora(in_4bit(model_folder), LoraSettings(r=4), seed=0)
    assert abs(stick.standing(fresh, nullcontext).drift_nats) < 1e-6
    assert stick.standing(models.load_model(str(model_folder)), nullcontext).drift_nats > 1e-3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"load_in_4bit": True}, "load_in_4bit: true has weights that cannot be trained. Add use_peft"),
        ({"use_peft": True, "bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type: is read where load_in_4bit is set"),
        ({**QLORA, "teacher": "copy"}, "teacher: copy would be the model in its own precision"),
        ({**QLORA, "trainer": {"fsdp": "full_shard"}}, "load_in_4bit: true has the model whole in every process"),
        ({**QLORA, "bnb_4bit_quant_type": "int4"}, "bnb_4bit_quant_type: "),
    ],
)
def test_what_cannot_be(given: dict[str, Any], said: str):
    with pytest.raises(ConfigError) as caught:
        read_settings({"model_name_or_path": "m", **given})
    assert any(problem.startswith(said) for problem in caught.value.problems), caught.value.problems


def test_without_bitsandbytes_the_extra_is_named(
    model_folder: Path, documents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("afterword.models.four_bit.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"bitsandbytes, which is not installed. Install it: pip install 'afterword"):
        adapt(model_folder, documents, output_dir=tmp_path / "run", **RUN)
    assert not (tmp_path / "run").exists()


def test_a_model_without_such_layers_is_refused(tmp_path: Path, build_model: Any, tokenizer: Any):
    build_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no layer of a llama model can be held in 4 bits"):
        in_4bit(tmp_path, kept=("proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))


def test_whether_texts_may_share_a_row_is_told_in_float32(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In halves, rounding of 4 bits comes to as much as a text that is read across the border."""
    half = models.load_in_4bit(str(model_folder), FourBit(), dtype=torch.bfloat16)
    before, seen = models.content_sha256(half), set[torch.dtype]()
    half.model.layers[1].mlp.up_proj.register_forward_hook(lambda *call: seen.add(call[2].dtype))
    assert models.packs_cleanly(half)
    assert seen == {torch.float32}
    assert (models.content_sha256(half), half.model.layers[1].mlp.up_proj.compute_dtype) == (before, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_run_is_merged_to_what_was_trained(model_folder: Path, documents: Any, tmp_path: Path):
    run = adapt(model_folder, documents, output_dir=tmp_path / "run", merge_adapter=True, method="disc", **RUN)
    trained, merged = in_4bit(run.path), load_adapted(str(run.path / "merged")).to("cuda")
    assert trained.device.type == "cuda"
    torch.testing.assert_close(said(merged), said(trained), rtol=1e-2, atol=1e-2)
