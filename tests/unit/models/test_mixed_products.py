"""Under bf16 autocast attention stays in float32 on processors where that is faster: nearer to what it should be."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from afterword.methods import METHODS
from afterword.models import attention_is_raised, mixed_precision
from afterword.models.mixed_products import raises_attention
from afterword.training import AdaptationTrainer, training_arguments

TOKENS = 40
MASKS = {
    "causal": {"is_causal": True},
    "of truths": {"attn_mask": torch.ones(TOKENS, TOKENS).tril().bool()},
    "of numbers": {"attn_mask": torch.full((TOKENS, TOKENS), -1e9, dtype=torch.bfloat16).triu(1)},
}


@pytest.fixture(autouse=True, params=[True, False], ids=["raised", "left"])
def raised(request: Any, monkeypatch: Any) -> bool:
    """Attention is raised, or it is left in bfloat16, whatever this processor has."""
    monkeypatch.setattr("afterword.models.mixed_products.raises_attention", lambda _: request.param)
    return request.param


@pytest.mark.parametrize("mask", MASKS)
def test_gradients_of_attention_are_not_rounded_on_the_way(mask: str, raised: bool):
    generator = torch.Generator().manual_seed(3)
    given = [torch.randn(1, heads, TOKENS, 16, generator=generator).bfloat16() for heads in (4, 2, 2)]
    weights = torch.randn(1, 4, TOKENS, 16, generator=generator).bfloat16()

    def gradients(dtype: torch.dtype, how: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
        leaves = [each.to(dtype).requires_grad_() for each in given]
        found = scaled_dot_product_attention(*leaves, enable_gqa=True, **how)
        return found, torch.autograd.grad(found, leaves, weights.to(found.dtype))

    mask_of = {name: value.double() if mask == "of numbers" else value for name, value in MASKS[mask].items()}
    with mixed_precision("cpu"):
        found, ours = gradients(torch.float32, MASKS[mask])
    assert found.dtype == torch.bfloat16, "as autocast gives it"
    _, wanted = gradients(torch.float64, mask_of)
    errors = [float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(ours, wanted, strict=True)]
    assert max(errors) < 1e-5 if raised else max(errors) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_autocast_attention_is_as_it_was(dtype: torch.dtype):
    given = torch.ones(1, 1, 3, 4, dtype=dtype)
    with mixed_precision("cpu", enabled=False):
        assert scaled_dot_product_attention(given, given, given).dtype == dtype


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_are_read_once_more_are_read_as_before(
    reentrant: bool, raised: bool, build_model: Any, documents: Any, tokenizer: Any, tmp_path: Any
):
    """Checkpointed layers give the gradients of layers that are kept, with attention as their backward pass has it."""
    method, steps = METHODS["finetune"], list[list[Tensor]]()
    for checkpointed in (False, True):
        model = build_model()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        trainer = AdaptationTrainer(
            model,
            training_arguments(method, output_dir=str(tmp_path), bf16=True, use_cpu=True),
            train_dataset=documents,
            processing_class=tokenizer,
            method=method,
        )
        with trainer.autocast():
            assert attention_is_raised() is (raised and not checkpointed)
        batches = next(iter(trainer.get_train_dataloader()))
        trainer.training_step(model, batches, trainer.count_weights([batches]))
        steps.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert steps[0]
    for kept, read_again in zip(*steps, strict=True):
        # What is rounded on the way is rounded otherwise where attention is in float32.
        assert (kept - read_again).norm() <= (0.05 if raised else 0.0) * kept.norm()


def test_processors_with_tile_units_are_left_alone(monkeypatch: Any, request: Any):
    monkeypatch.undo()
    for tiles in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles)
        raises_attention.cache_clear()
        assert raises_attention("cpu") is not tiles
        assert not raises_attention("cuda")
    raises_attention.cache_clear()
