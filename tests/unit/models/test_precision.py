"""Which arithmetic is faster is measured: by what it took, for the model's own shape, and once."""

import time

import pytest
import torch
from torch import nn
from transformers import GPT2Config, LlamaConfig

from afterword.models import bf16_speedup, layer_shape, measured_precision
from afterword.models import precision as precision_module
from afterword.objectives import Distillation, Head, forward_kl, weighted_sum


def test_the_race_is_short_and_run_once():
    bf16_speedup.cache_clear()
    threads, began = torch.get_num_threads(), time.thread_time()
    found = bf16_speedup(64, 256)
    assert found > 0
    assert time.thread_time() - began < 3
    assert torch.get_num_threads() == threads
    assert bf16_speedup(64, 256) == found
    assert bf16_speedup.cache_info().hits == 1


@pytest.mark.skipif(torch.accelerator.is_available(), reason="of processors")
@pytest.mark.parametrize(("half_seconds", "expected"), [(0.5, "bf16_mixed"), (0.9, "float32"), (2.0, "float32")])
def test_only_what_is_clearly_faster_is_taken(half_seconds, expected, model_folder, monkeypatch):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16 instructions")
    monkeypatch.setattr(precision_module, "_seconds", lambda *_, half: half_seconds if half else 1.0)
    bf16_speedup.cache_clear()
    assert measured_precision(str(model_folder)) == expected
    bf16_speedup.cache_clear()


def test_several_processes_do_not_race(model_folder, monkeypatch):
    if torch.accelerator.is_available():
        pytest.skip("of processors")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(precision_module, "_seconds", lambda *_, half: 0.1 if half else 1.0)
    assert measured_precision(str(model_folder)) == "float32"


def test_the_layer_has_the_models_width_up_to_a_limit():
    assert layer_shape(LlamaConfig(hidden_size=576, intermediate_size=1536)) == (576, 1536)
    assert layer_shape(GPT2Config(n_embd=48)) == (48, 192)
    hidden, inner = layer_shape(LlamaConfig(hidden_size=8192, intermediate_size=28672))
    assert (hidden, inner) == (1024, 3584)


def test_the_loss_of_autocast_hidden_states_is_exact_to_float32():
    """Student and teacher nearly equal, hidden states as autocast gives them: no logit is rounded."""
    torch.manual_seed(0)
    backbone, weight = nn.Linear(32, 64), torch.randn(500, 64)
    inputs = torch.randn(40, 32)
    with torch.autocast("cpu", torch.bfloat16):
        teacher = backbone(inputs).detach()
        student = (teacher.float() + 1e-3 * torch.randn(40, 64)).requires_grad_()
        sides = ((student, Head(weight)), (teacher, Head(weight)))
        ids, weights = torch.zeros(40, dtype=torch.int64), torch.ones(40)
        loss, _ = weighted_sum(Distillation(forward_kl), *sides, ids, weights)
    loss.backward()
    exact = student.detach().double().requires_grad_()
    logp = (exact @ weight.double().T).log_softmax(-1)
    target = (teacher.double() @ weight.double().T).log_softmax(-1)
    (target.exp() * (target - logp)).sum().backward()
    assert student.grad is not None
    error = (student.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < 2e-3, "rounding logits to bfloat16 gives about 1"
