"""What a run saves: the precision that keeps what was trained, said and recorded; and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from afterword import CheckpointError, ConfigError, adapt, models
from afterword.models import load_adapted, load_model, load_tokenizer, said
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.training import finish as finishing
from afterword.training import run as adapting
from afterword.training.finish import gain_sample
from afterword.training.run_folder import differences

pytestmark = pytest.mark.usefixtures("unseen")

# Nothing is left to choose, so nothing is measured for a budget.
FIXED = {"lr_scheduler_type": "linear", "warmup_steps": 0}
GENTLE = {"method": "disc", "max_steps": 2, "learning_rate": 1e-7, **FIXED}
FIRM = {"max_steps": 6, "learning_rate": 3e-3, "method": "finetune", **FIXED}


@pytest.fixture
def half(tmp_path: Path, model_folder: Path) -> str:
    """The tiny model saved in bfloat16."""
    load_model(str(model_folder), dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    load_tokenizer(str(model_folder)).save_pretrained(tmp_path / "half")
    return str(tmp_path / "half")


def stored(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The precision that the configuration names, and the weights as they are in the file."""
    return json.loads((folder / "config.json").read_text())["dtype"], load_file(folder / "model.safetensors")


def record(run: Any) -> dict[str, Any]:
    return json.loads((run.path / "data.json").read_text())["saved"]


def test_a_gentle_run_is_saved_in_the_precision_that_keeps_it(half: str, tmp_path: Path, documents: Any, capsys: Any):
    start, moved, records = load_file(Path(half) / "model.safetensors"), {}, {}
    for precision, dtype in ((None, "float32"), ("model", "bfloat16"), ("bf16", "bfloat16"), ("float32", "float32")):
        run = adapt(half, documents, output_dir=tmp_path / str(precision), save_precision=precision, **GENTLE)
        named, weights = stored(run.path)
        assert (named, {str(value.dtype) for value in weights.values()}) == (dtype, {f"torch.{dtype}"})
        changed = sum(int((value.float() != start[name].float()).sum()) for name, value in weights.items())
        moved[precision] = changed / sum(value.numel() for value in weights.values())
        records[precision] = record(run)
        assert records[precision]["sentence"] in capsys.readouterr().err.replace("\n", " ")
    assert moved["model"] == moved["bf16"] < 0.05 < 0.5 < moved["float32"] == moved[None]
    assert records[None]["choice"] == "float32"
    assert records["model"]["nearest"]["changed_frac"] == pytest.approx(moved["model"])
    assert records["model"]["sentence"].startswith("Warning: saved in bf16")
    assert records["model"]["seconds"] > 0


def test_a_firm_run_stays_in_the_models_own_precision(half: str, tmp_path: Path, documents: Any):
    run = adapt(half, documents, output_dir=tmp_path / "run", save_steps=6, **FIRM)
    saved = record(run)
    assert (saved["choice"], saved["rule"], stored(run.path)[0]) == ("as it came", "gain", "bfloat16")
    assert saved["nearest"]["gain_frac"] >= 0.99
    # The figures are those of the weights: the last checkpoint has them as they were trained.
    base, trained = load_file(Path(half) / "model.safetensors"), load_file(run.path / "checkpoint-6/model.safetensors")
    update, left = (
        torch.cat([(weights[name].float() - base[name].float()).flatten() for name in base])
        for weights in (trained, stored(run.path)[1])
    )
    assert saved["update_norm"] == pytest.approx(float(update.norm()), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(update, left, dim=0)
    assert saved["nearest"]["cosine"] == pytest.approx(float(cosine), rel=1e-4)


@pytest.mark.parametrize("method", ["finetune", "disc", "mol", "lwf"])
def test_the_losses_are_the_methods_own_on_a_fixed_sample(method: str, half: str, tmp_path: Path, documents: Any):
    raw = {"model_name_or_path": half, "output_dir": str(tmp_path), "method": method, "max_steps": 4}
    general = [{"id": "g", "text": "Rain comes at three. It stays until nine."}]
    if method == "mol":
        file = tmp_path / "general.jsonl"
        file.write_text(json.dumps(general[0]) + "\n")
        raw |= {"mixture": [f"g={file},kind=documents,tokens=0.5"]}
    trainer, _ = adapting.load_trainer(read_settings(raw), documents, tmp_path)
    state = torch.get_rng_state()
    sample = gain_sample(trainer)
    first, again = sample.loss(trainer.model), gain_sample(trainer).loss(trainer.model)
    assert first == again
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.01)
    # The teacher's words were kept: it is the student alone that differs.
    assert sample.loss(trainer.model) != first


def test_a_models_own_loss_is_computed_without_rounding(half: str, tmp_path: Path, documents: Any):
    """Under autocast the rounded weights and those that were trained would say the same."""
    how = {**GENTLE, "precision": "bf16_mixed", "method": "finetune", "learning_rate": 1e-5, "max_steps": 8}
    saved = record(adapt(half, documents, output_dir=tmp_path / "run", **how))
    assert saved["choice"] != "as it came"
    assert saved["nearest"]["gain_frac"] < 0.9


def test_an_adapter_has_a_precision_of_its_own(half: str, tmp_path: Path, documents: Any):
    given = {"model_name_or_path": "m", "output_dir": "o", "use_peft": True, "save_precision": "float32"}
    with pytest.raises(ConfigError, match=r"save_precision: float32 is for whole models, .* leave it out"):
        read_settings(given)
    how = {"use_peft": True, "merge_adapter": True, "save_precision": "float32", **GENTLE, "max_steps": 1}
    run = adapt(half, documents, output_dir=tmp_path / "run", **how)
    assert stored(run.path / "merged")[0] == "float32"


@pytest.mark.parametrize("precision", ["float32", "bf16_mixed"])
def test_a_merged_adapter_says_what_both_say_apart(precision: str, half: str, tmp_path: Path, documents: Any):
    how = {**GENTLE, "learning_rate": 1e-4, "use_peft": True, "merge_adapter": True, "precision": precision}
    run = adapt(half, documents, output_dir=tmp_path / "run", save_precision="float32", **how)
    apart = said(load_adapted(str(run.path)))
    whole, base = said(load_model(str(run.path / "merged"))), said(load_model(half))
    assert float((whole - apart).norm()) < 0.01 * float((apart - base).norm())
    # As peft reads both, without us.
    reread = peft.PeftModel.from_pretrained(load_model(half), run.path)
    torch.testing.assert_close(said(reread), apart)


def test_how_a_merged_adapter_is_saved_is_decided_as_of_any_model(half: str, tmp_path: Path, documents: Any):
    how = {**GENTLE, "learning_rate": 1e-5, "use_peft": True, "merge_adapter": True}
    saved = record(adapt(half, documents, output_dir=tmp_path / "run", **how))
    assert saved["sentence"].startswith("The adapter is saved in float32: nothing is rounded. merged/: saved in ")
    merged = saved["merged"]
    assert merged["choice"] != "as it came"
    assert merged["loss_trained_nats"] < merged["loss_before_nats"]
    assert merged["nearest"]["gain_frac"] < 0.9


def test_an_embedding_of_its_own_is_no_longer_the_outputs(tmp_path: Path, build_model: Any, tokenizer: Any, documents):
    build_model("llama", tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    tokenizer.save_pretrained(tmp_path / "tied")
    how = {"max_steps": 3, "learning_rate": 5e-2, "use_peft": True, "merge_adapter": True, **FIXED}
    how |= {"method": "disc", "lora_target_modules": ["embed_tokens", "q_proj"], "lora_dropout": 0}
    run = adapt(str(tmp_path / "tied"), documents, output_dir=tmp_path / "run", **how)
    merged = load_model(str(run.path / "merged"))
    assert merged.lm_head.weight is not merged.model.embed_tokens.weight
    torch.testing.assert_close(said(merged), said(load_adapted(str(run.path))), rtol=1e-3, atol=1e-4)


def test_a_folder_that_says_something_else_is_no_result(half: str, tmp_path: Path, documents: Any, monkeypatch: Any):
    from afterword.models import fixed_logits as saying

    def damaged(folder: str, **how: Any) -> Any:
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.5
        save_file(tensors, file, metadata={"format": "pt"})
        return load_adapted(folder, **how)

    with monkeypatch.context() as patch:
        patch.setattr(saying, "load_adapted", damaged)
        with pytest.raises(CheckpointError, match=r"is not what was trained: read again, its logits differ by"):
            adapt(half, documents, output_dir=tmp_path / "run", **GENTLE)
    assert not models.has_result(tmp_path / "run")
    # The checkpoint is there, and the same command completes the run.
    assert adapt(half, documents, output_dir=tmp_path / "run", **GENTLE).resumed_from == 2
    assert models.has_result(tmp_path / "run")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, []),
        ({"save_steps": 1}, [1, 2]),
        ({"save_total_limit": 1}, [2]),
        ({"save_steps": 1, "save_total_limit": 1}, [2]),
        ({"trainer": {"save_only_model": True}}, [2]),
    ],
)
def test_checkpoints_stay_where_they_were_asked_for(asked: Any, kept: Any, half: str, tmp_path: Path, documents: Any):
    run = adapt(half, documents, output_dir=tmp_path / "run", **GENTLE, **asked)
    assert sorted(int(path.name.split("-")[1]) for path in run.path.glob("checkpoint-*")) == kept
    assert adapt(half, documents, output_dir=tmp_path / "run", **GENTLE, **asked).already_complete


@pytest.mark.parametrize(("given", "limit"), [({}, 2), ({"save_total_limit": 7}, 7), ({"save_total_limit": 0}, None)])
def test_how_many_checkpoints_a_run_keeps_while_it_goes_on(given: Any, limit: Any):
    settings = read_settings({"model_name_or_path": "m", **given}).training_settings()
    assert (settings["save_total_limit"], settings["save_steps"]) == (limit, 500)


def test_configurations_from_before_there_was_a_choice_are_read():
    old = read_settings({"model_name_or_path": "m", "save_precision": None})
    assert old.save_precision == "auto"
    recorded = {**AdaptSettings().model_dump(mode="json"), "save_precision": None, "save_steps": 500}
    assert differences(recorded, old) == []
    assert differences(recorded, read_settings({"model_name_or_path": "m", "save_precision": "model"}))


def test_what_is_pushed_is_the_folder_that_was_saved(tmp_path: Path, monkeypatch: Any):
    import huggingface_hub

    pushed: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **what: pushed.update(what))
    settings = read_settings({"model_name_or_path": "m", "trainer": {"hub_token": "secret"}})
    finishing.push(settings, tmp_path, "someone/model")
    assert (pushed["folder_path"], pushed["repo_id"], pushed["token"]) == (tmp_path, "someone/model", "secret")
    assert "checkpoint-*" in pushed["ignore_patterns"]

    def refuses(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuses)
    with pytest.raises(Exception, match=r"push_to_hub: 'someone/model' was not pushed \(no network\). The result is"):
        finishing.push(settings, tmp_path, "someone/model")
