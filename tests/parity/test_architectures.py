"""The compatibility list: packed equals one by one, and DiSC equals its dense float64 form, with LoRA too."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from afterword.methods import METHODS, get_method
from afterword.models import LoraSettings, check_head, packs_cleanly, with_lora
from afterword.objectives import AdaptivePrediction

pytestmark = pytest.mark.usefixtures("scripted")

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "olmo2", "mistral", "phi3", "gpt_neox")
# Every method on the first, and on every second of the others: none of these knows which methods there are.
READ = [(kind, name) for j, kind in enumerate(ARCHITECTURES) for i, name in enumerate(METHODS) if not j or (i + j) % 2]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_packed_texts_do_not_see_each_other(kind: str, attention: str, build_model: Any) -> None:
    model = build_model(kind)
    model.set_attn_implementation(attention)
    assert packs_cleanly(model)
    check_head(model)


@pytest.mark.parametrize(("kind", "name"), READ)
def test_packed_gradients_are_those_of_documents_read_one_by_one(
    kind: str, name: str, pair: Any, documents: Any, step_gradient: Any, step_gradients: Any, assert_close: Any
) -> None:
    if METHODS[name].view.writes and not METHODS[name].view.reads_passages:
        pytest.skip("a document becomes several, and a step has some of them")
    student, reference = pair(kind)
    # Text that links documents is another beside others.
    alone_too = {"kinds": ("summary", "rephrase")} if "kinds" in METHODS[name].settings() else {}
    # General text would be another in every step.
    method = replace(METHODS[name].configured(averaging="document", **alone_too, **_no_draw(name)), replay=None)
    if isinstance(method.objective, AdaptivePrediction):
        pytest.skip("its weights follow from the step as a whole")
    packed = step_gradient(student, reference, documents[:4], method, mixture={})
    # Alone in a step, a document's loss cannot depend on a neighbour. The mean of four steps is the step of four.
    how = {"steps": 4, "documents_per_step": 1, "mixture": {}}
    alone = step_gradients(student, reference, documents[:4], method, **how)
    mean = {key: sum(g[key] for g in alone) / len(alone) for key in packed}
    assert_close(packed, mean, 2e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_disc_is_its_dense_form_in_float64(
    kind: str, pair: Any, documents: Any, naive_disc_loss: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair(kind)
    method = get_method("disc").configured(strategy="all")
    ours = step_gradient(student, reference, documents[:3], method)
    naive_disc_loss(student.double(), reference.double(), documents[:3]).backward()
    assert_close(ours, _gradients(student), 2e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_disc_with_lora_teaches_from_the_weights_below(
    kind: str,
    build_model: Any,
    perturb: Any,
    documents: Any,
    tokenizer: Any,
    naive_disc_loss: Any,
    tmp_path: Any,
    assert_close: Any,
) -> None:
    from afterword.training import AdaptationTrainer, training_arguments

    base = build_model(kind)
    reference = copy.deepcopy(base).double()
    adapted = perturb(with_lora(base, LoraSettings(r=4, dropout=0.0), seed=0))
    method = get_method("disc").configured(strategy="all")
    trainer = AdaptationTrainer(
        adapted,
        training_arguments(method, output_dir=str(tmp_path)),
        train_dataset=documents[:3],
        processing_class=tokenizer,
        method=method,
        documents_per_step=3,
    )
    parts, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    trainer.training_step(adapted, parts[0], count)
    ours = {n: p.grad.clone() for n, p in adapted.named_parameters() if p.grad is not None}
    assert ours
    assert all("lora_" in name for name in ours), "only the adapter is trained"
    adapted.zero_grad()
    naive_disc_loss(adapted.double(), reference, documents[:3]).backward()
    assert_close(ours, _gradients(adapted), 2e-5)


def test_an_architecture_that_contaminates_is_trained_one_text_a_row_and_says_so(build_model: Any) -> None:
    from transformers import AutoModelForCausalLM, OPTConfig

    from afterword.models import checked_layout

    opt = OPTConfig(
        vocab_size=300, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(opt)
    with pytest.warns(UserWarning, match="row of its own"):
        assert checked_layout(model) == "padded"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checked_layout(build_model("llama")) == "packed"


def _no_draw(name: str) -> dict[str, str]:
    # Draws depend on a document's row; with every sentence drawn there is no draw to differ.
    return {"strategy": "all"} if "strategy" in METHODS[name].settings() else {}


def _gradients(model: Any) -> Any:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
