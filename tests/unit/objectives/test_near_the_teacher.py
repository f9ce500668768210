"""Half precision against float64: nothing is rounded away, least of all where student and teacher are nearly equal."""

from functools import cache

import pytest
import torch

from afterword.objectives import (
    Distillation,
    Head,
    Prediction,
    PredictionNear,
    SelfDistillation,
    forward_kl,
    hidden_losses,
    jsd,
    reverse_kl,
    total,
    weighted_sum,
)
from afterword.objectives.products import exact_products, product_back

OBJECTIVES = {
    "forward_kl": Distillation(forward_kl),
    "warm_forward_kl": Distillation(forward_kl, temperature=2.0),
    "reverse_kl": Distillation(reverse_kl),
    "jsd": Distillation(jsd),
    "cross_entropy": Prediction(),
    "prediction_near": PredictionNear(beta=0.3, temperature=1.5),
    "swap": SelfDistillation(alpha=0.3, temperature=2.0),
    "swap_reverse": SelfDistillation(alpha=0.3, direction="reverse"),
    "no_swap": SelfDistillation(alpha=0.6, temperature=2.0, swap=False),
}
HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 5.0},
    "all": {"bias": True, "scale": 1.7, "softcap": 30.0},
    "rows_in_common": {"common": 4.0},
}
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]
POSITIONS, VOCABULARY, HIDDEN = 64, 2000, 128
GRADIENT_ERROR = {torch.bfloat16: 3.5e-3, torch.float32: 1e-3}
"""Of the norm. In bfloat16 0.17 % for the result, about as much for what is rounded before it, where that is faster."""


@cache
def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def raised(side):
    return [None if each is None else each.double() for each in side]


def dense_logits(side, scale=1.0, softcap=None):
    states, weight, bias = side
    logits = scale * (states @ weight.T + (0.0 if bias is None else bias))
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


@cache
def near(dtype, kl, kind, drifted, device):
    """(States, weight, bias) of the student and of the teacher, `kl` nats apart on average; how logits follow.

    What differs are the states, and where it has `drifted` the weight; if not, both read one head.
    """
    how = dict(HEADS[kind])
    bias = draw(VOCABULARY, seed=5).to(dtype) if how.pop("bias", False) else None
    factor, common = 4 / HIDDEN**0.5, how.pop("common", 0.0) * draw(1, HIDDEN, seed=7)
    weight = (factor * (draw(VOCABULARY, HIDDEN, seed=2) + common)).to(dtype)
    student = draw(POSITIONS, HIDDEN, seed=1).to(dtype), weight, bias
    found, apart = kl, 0.01
    for _ in range(6):
        apart *= (kl / found) ** 0.5
        states = (student[0].double() + apart * draw(POSITIONS, HIDDEN, seed=3)).to(dtype)
        moved = (student[1].double() + apart * factor * draw(VOCABULARY, HIDDEN, seed=4)).to(dtype)
        teacher = states, moved if drifted else student[1], bias
        found = float(forward_kl(dense_logits(raised(student), **how), dense_logits(raised(teacher), **how)).mean())
    assert found == pytest.approx(kl, rel=0.1)
    student = [None if each is None else each.to(device) for each in student]
    return student, [states.to(device), moved.to(device) if drifted else student[1], student[2]], how


def as_leaves(side, trained_head):
    """The side with tensors of its own where something is trained, and these."""
    trained = (True, trained_head, trained_head)
    side = [
        each.detach().clone().requires_grad_() if each is not None and learns else each
        for each, learns in zip(side, trained, strict=True)
    ]
    return side, [each for each in side if each is not None and each.requires_grad]


def fused(objective, student, teacher, how, ids, weights, divisor, trained_head):
    """Σ weight · loss, parts, and gradients of the sum over the divisor."""
    (states, *head), leaves = as_leaves(student, trained_head)
    sides = (states, Head(*head, **how)), (teacher[0], Head(*teacher[1:], **how))
    assert sides[0][1].is_same_as(sides[1][1]) == (student[1] is teacher[1] and not trained_head)
    loss, parts = weighted_sum(objective, *sides, ids, weights)
    return loss.detach(), parts, torch.autograd.grad(loss / divisor, leaves)


def exact(objective, student, teacher, how, ids, weights, divisor, trained_head):
    """The same by the definition, in float64."""
    side, leaves = as_leaves(raised(student), trained_head)
    parts = objective.parts(dense_logits(side, **how), dense_logits(raised(teacher), **how), ids)
    loss = (weights.double() * total(objective, parts)).sum()
    return loss.detach(), parts.detach(), torch.autograd.grad(loss / divisor, leaves)


def assert_near(found, wanted, error):
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine.double() - theirs).norm() <= error * theirs.norm()


CASES = [(dtype, kl, "plain") for dtype in GRADIENT_ERROR for kl in (5e-1, 5e-2, 5e-3)]
CASES += [(dtype, 5e-4, kind) for dtype in GRADIENT_ERROR for kind in HEADS]
# Far from the teacher little is rounded away: there, every objective has one of the two heads, in turn.
CASES = [
    (name, *case, trained)
    for i, name in enumerate(OBJECTIVES)
    for j, case in enumerate(CASES)
    for trained in (False, True)
    if case[1] == 5e-4 or (i + j) % 2 == trained
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "dtype", "kl", "kind", "trained_head"), CASES)
def test_near_the_teacher_nothing_is_rounded_away(name, dtype, kl, kind, trained_head, device):
    """A frozen head is the teacher's too; a trained one has left it. Undivided, and divided as in a step."""
    student, teacher, how = near(dtype, kl, kind, trained_head, device)
    ids = torch.arange(POSITIONS, device=device) * 31
    weights = draw(POSITIONS, seed=6).abs().float().to(device)
    given = OBJECTIVES[name], student, teacher, how, ids, weights
    exact_loss, exact_parts, exact_gradients = exact(*given, 1.0, trained_head)
    for divisor in (1.0, 837.3):
        loss, parts, gradients = fused(*given, divisor, trained_head)
        torch.testing.assert_close(parts.double(), exact_parts, rtol=1e-3, atol=1e-8)
        torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-3, atol=0.0)
        assert_near(gradients, [each / divisor for each in exact_gradients], GRADIENT_ERROR[dtype])


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_rounded_factors_make_gradients_as_near_as_a_half_precision_head(name, kind):
    """Losses stay what they are to the last bit; gradients are rounded, and those of rows in common not away."""
    student, teacher, how = near(torch.float32, 5e-4, kind, True, "cpu")
    ids, weights = torch.arange(POSITIONS) * 31, draw(POSITIONS, seed=6).abs().float()
    given = OBJECTIVES[name], student, teacher, how, ids, weights, 837.3, True
    (loss, parts, plain), (_, _, wanted) = fused(*given), exact(*given)
    (states, *head), leaves = as_leaves(student, True)
    sides = (states, Head(*head, **how)), (teacher[0], Head(*teacher[1:], **how))
    rounded_loss, rounded_parts = weighted_sum(OBJECTIVES[name], *sides, ids, weights, rounds_gradients=True)
    found = torch.autograd.grad(rounded_loss / 837.3, leaves)
    assert torch.equal(rounded_loss, loss)
    assert torch.equal(rounded_parts, parts)
    # 0.17 % for either factor and for the result.
    assert_near(found, wanted, 4e-3)
    for mine, theirs in zip(found, plain, strict=True):
        assert mine.dim() == 1 or not torch.equal(mine, theirs), "asked for, and done"


HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("teacher_dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_student_and_teacher_of_different_size_and_precision(name, dtype, teacher_dtype, trained_head, device):
    objective, how = OBJECTIVES[name], {"scale": 0.5}
    student, teacher = (
        [draw(*shape, seed=seed).to(device, kind) for seed, shape in enumerate(shapes)]
        for kind, shapes in ((dtype, [(13, 6), (170, 6), (170,)]), (teacher_dtype, [(13, 9), (170, 9), (170,)]))
    )
    ids, weights = torch.arange(13, device=device) * 7, draw(13, seed=6).float().to(device)
    given = objective, student, teacher, how, ids, weights, 37.3, trained_head
    (_, parts, gradients), (_, exact_parts, exact_gradients) = fused(*given), exact(*given)
    assert parts.dtype == torch.float32
    torch.testing.assert_close(parts.double(), exact_parts, rtol=1e-4, atol=1e-5)
    assert_near(gradients, exact_gradients, 1e-5 if dtype == torch.float32 else 3.5e-3)
    sides = (student[0], Head(*student[1:], **how)), (teacher[0], Head(*teacher[1:], **how))
    losses = hidden_losses(objective, *sides, ids, workspace_mib=1e-3)
    torch.testing.assert_close(losses.double(), total(objective, exact_parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_what_a_loss_is_multiplied_with_comes_before_float16(device):
    """A scaled loss, as of a gradient scaler: without the scale these gradients are 0 in float16."""
    student, teacher, how = near(torch.float16, 5e-4, "plain", True, device)
    ids, weights = torch.zeros(POSITIONS, dtype=torch.int64, device=device), torch.full((POSITIONS,), 1e-9).to(device)
    for trained_head in (False, True):
        given = OBJECTIVES["forward_kl"], student, teacher, how, ids, weights, 2.0**-30, trained_head
        assert_near(fused(*given)[2], exact(*given)[2], 3.5e-3)


class AsOnAGpu(torch.Tensor):
    """Takes the way of a GPU, where the processor has no product for halves: it would raise."""

    is_cuda = True


@pytest.mark.parametrize("device", DEVICES)
def test_small_gradients_are_not_0_beside_a_float16_head(device):
    gradient, weight = (1e-9 * draw(5, 300, seed=1)).float().to(device), draw(300, 7, seed=2).half().to(device)
    wanted = gradient.double() @ weight.double()
    for given in (gradient, gradient.as_subclass(AsOnAGpu)):
        assert_near([product_back(given, weight)], [wanted], 1e-5)


@pytest.fixture
def tf32():
    """Float32 factors of products are rounded to 10 bits on a GPU, as some machines have it from the start."""
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    yield settings
    settings.fp32_precision = before


def test_factors_are_not_rounded_while_a_head_multiplies_and_are_again_when_it_is_done(tf32):
    with exact_products(torch.device("cuda")):
        assert tf32.fp32_precision == "ieee"
    assert tf32.fp32_precision == "tf32"
    with pytest.raises(ZeroDivisionError), exact_products(torch.device("cuda")):
        _ = 1 / 0
    assert tf32.fp32_precision == "tf32"


def test_a_processor_leaves_the_settings_of_a_gpu_alone(tf32):
    with exact_products(torch.device("cpu")):
        assert tf32.fp32_precision == "tf32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_float32_logits_and_gradients_are_whole_where_torch_rounds_to_tf32(tf32):
    states, weight = draw(64, 256, seed=1).float().cuda(), draw(300, 256, seed=2).float().cuda()
    assert_near([Head(weight).logits(states)], [states.double() @ weight.double().T], 1e-6)
    # What is ours alone: elsewhere torch goes on as it was told.
    assert (states @ weight.T - states.double() @ weight.double().T).abs().max() > 1e-3
