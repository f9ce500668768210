"""On a GPU the gradients of a processor, by every method, and the same keeping apart. Skipped where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from afterword.methods import METHODS
from afterword.models import check_head, packs_cleanly
from afterword.training.small_adamw import RoundedAdamW, RoundedAdamW8bit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
KERNELS = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
RATES: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def in_one(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of all weights, by name, in float64 on the processor."""
    return torch.cat([gradients[name].double().cpu().flatten() for name in sorted(gradients)])


@pytest.mark.parametrize(("arguments", "tolerance"), [({}, 1e-3), ({"bf16": True}, 0.1)], ids=["float32", "autocast"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_has_the_gradient_of_a_processor(
    name: str, arguments: dict[str, Any], tolerance: float, pair: Any, documents: Any, step_gradient: Any
) -> None:
    expected = in_one(step_gradient(*pair("qwen3"), documents, METHODS[name], arguments={"use_cpu": True}))
    found = in_one(step_gradient(*pair("qwen3"), documents, METHODS[name], arguments=arguments))
    # Products in bfloat16 are a hundredth off each; what is wrong is off by much more.
    assert (found - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("kernel", KERNELS)
def test_packed_texts_are_kept_apart_while_the_model_waits_in_the_machines_memory(kernel: str) -> None:
    config = transformers.Qwen3Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )
    how: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": kernel}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        try:
            model = transformers.AutoModelForCausalLM.from_config(config, **how)
        except ImportError as error:
            pytest.skip(str(error).splitlines()[0])
    check_head(model)
    assert packs_cleanly(model)
    assert model.device.type == "cpu"


@pytest.mark.parametrize("kind", [RoundedAdamW, RoundedAdamW8bit])
def test_the_compiled_update_is_that_of_a_processor_and_the_same_twice(kind: Any) -> None:
    start = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    gradients = [torch.randn(512, 64, generator=torch.Generator().manual_seed(n)) for n in range(3)]

    def trained(device: str, dtype: torch.dtype) -> torch.Tensor:
        weight = torch.nn.Parameter(start.to(device, dtype))
        optimizer = kind([weight], seed=0, **RATES)
        for gradient in gradients:
            weight.grad = gradient.to(device, dtype)
            optimizer.step()
        return weight.detach().cpu()

    moved = trained("cpu", torch.float32) - start
    assert (trained("cuda", torch.float32) - start - moved).norm() / moved.norm() < 0.01
    torch.testing.assert_close(*(trained("cuda", torch.bfloat16) for _ in range(2)), rtol=0, atol=0)
