"""What holds for any correct divergence: no number here comes from our own code."""

import math

import pytest
import torch

from afterword.objectives import Distillation, Head, Prediction, cross_entropy, forward_kl, jsd, reverse_kl, total

DIVERGENCES = (forward_kl, reverse_kl, jsd)
TEACHER = torch.tensor([[0.75, 0.25]]).log()
STUDENT = torch.tensor([[0.50, 0.50]]).log()


def random_logits(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator, dtype=dtype)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_forward_kl_of_two_tokens_by_hand():
    assert forward_kl(STUDENT, TEACHER).item() == pytest.approx(kl((0.75, 0.25), (0.5, 0.5)), rel=1e-6)


def test_reverse_kl_of_two_tokens_by_hand():
    assert reverse_kl(STUDENT, TEACHER).item() == pytest.approx(kl((0.5, 0.5), (0.75, 0.25)), rel=1e-6)


def test_jsd_of_two_tokens_by_hand():
    mixture = (0.625, 0.375)
    by_hand = (kl((0.75, 0.25), mixture) + kl((0.5, 0.5), mixture)) / 2
    assert jsd(STUDENT, TEACHER).item() == pytest.approx(by_hand, rel=1e-5)


def test_cross_entropy_of_two_tokens_by_hand():
    losses = cross_entropy(TEACHER.expand(2, 2), torch.tensor([0, 1]))
    assert losses.tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)], rel=1e-6)


@pytest.mark.parametrize(
    ("divergence", "by_hand"),
    [(forward_kl, 4 * kl((0.75, 0.25), (0.5, 0.5))), (reverse_kl, 4 * kl((0.5, 0.5), (0.75, 0.25)))],
)
def test_a_temperature_of_two_by_hand(divergence, by_hand):
    # exp(ln 9 / 2) = 3, so the teacher at temperature 2 is (3/4, 1/4); times τ² = 4.
    teacher, student = torch.tensor([[math.log(9), 0.0]]), torch.zeros(1, 2)
    assert divergence(student, teacher, temperature=2.0).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_loss_and_gradient_are_zero_at_equality(divergence, temperature):
    teacher = random_logits(7, 11)
    student = teacher.clone().requires_grad_()
    losses = divergence(student, teacher, temperature=temperature)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), rtol=0, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_losses_are_one_positive_number_per_position(divergence):
    losses = divergence(random_logits(50, 13, seed=1), random_logits(50, 13, seed=2))
    assert losses.shape == (50,)
    assert (losses > 0).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_constant_added_to_the_logits_changes_nothing(divergence):
    student, teacher = random_logits(5, 13, seed=1), random_logits(5, 13, seed=2)
    torch.testing.assert_close(divergence(student + 100, teacher - 7), divergence(student, teacher))


def test_directions_are_not_swapped():
    # The student puts no mass where the teacher puts half: the forward KL must object loudly.
    teacher = torch.tensor([[0.5, 0.5]]).log()
    student = torch.tensor([[0.999999, 0.000001]]).log()
    assert forward_kl(student, teacher) > 5 > reverse_kl(student, teacher)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_gradient_of_forward_kl_is_the_difference_of_probabilities_times_the_temperature(temperature):
    student, teacher = random_logits(3, 11, seed=1).requires_grad_(), random_logits(3, 11, seed=2)
    forward_kl(student, teacher, temperature=temperature).sum().backward()
    s, p = ((logits.detach() / temperature).softmax(-1) for logits in (student, teacher))
    torch.testing.assert_close(student.grad, temperature * (s - p))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradient_of_reverse_kl_is_its_formula(temperature):
    student, teacher = random_logits(3, 11, seed=1).requires_grad_(), random_logits(3, 11, seed=2)
    reverse_kl(student, teacher, temperature=temperature).sum().backward()
    s, p = ((logits.detach() / temperature).softmax(-1) for logits in (student, teacher))
    ratio = (s / p).log()
    torch.testing.assert_close(student.grad, temperature * s * (ratio - (s * ratio).sum(-1, keepdim=True)))


@pytest.mark.parametrize(("divergence", "share"), [(forward_kl, 1.0), (reverse_kl, 1.0), (jsd, 0.25)])
def test_the_gradient_keeps_its_scale_at_high_temperature(divergence, share):
    # Hinton et al. 2015, section 2: τ² · KL → ‖centred difference of logits‖² / 2V; the JSD is a quarter of it.
    student, teacher = random_logits(3, 11, seed=1).requires_grad_(), random_logits(3, 11, seed=2)
    divergence(student, teacher, temperature=1e4).sum().backward()
    difference = student.detach() - teacher
    expected = share * (difference - difference.mean(-1, keepdim=True)) / 11
    torch.testing.assert_close(student.grad, expected, rtol=5e-3, atol=1e-4)


def test_jsd_is_symmetric():
    student, teacher = random_logits(50, 13, seed=1), random_logits(50, 13, seed=2)
    torch.testing.assert_close(jsd(student, teacher, temperature=1.5), jsd(teacher, student, temperature=1.5))


def test_jsd_is_at_most_ln_2_and_reaches_it_where_nothing_is_shared():
    student, teacher = 20 * random_logits(200, 5, seed=1), 20 * random_logits(200, 5, seed=2)
    assert (jsd(student, teacher) <= math.log(2) + 1e-12).all()
    apart = jsd(torch.tensor([[80.0, 0.0]]), torch.tensor([[0.0, 80.0]]))
    assert apart.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_half_precision_is_raised_before_anything_is_computed(divergence, dtype):
    student, teacher = random_logits(5, 300, seed=1).to(dtype), random_logits(5, 300, seed=2).to(dtype)
    losses = divergence(student, teacher)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), divergence(student.double(), teacher.double()), rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_half_precision_is_float32():
    logits, targets = random_logits(5, 300).to(torch.bfloat16), torch.arange(5)
    losses = cross_entropy(logits, targets)
    assert losses.dtype == torch.float32
    exact = -logits.double().log_softmax(-1)[torch.arange(5), targets]
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_float64_stays_float64(divergence):
    assert divergence(random_logits(2, 3), random_logits(2, 3)).dtype == torch.float64
    assert cross_entropy(random_logits(2, 3), torch.tensor([0, 1])).dtype == torch.float64


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_very_large_logits_give_finite_losses(divergence):
    student, teacher = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    assert torch.isfinite(divergence(student, teacher)).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_distillation_is_its_divergence_at_its_temperature(divergence):
    objective = Distillation(divergence, temperature=3.0)
    student, teacher = random_logits(4, 9, seed=1), random_logits(4, 9, seed=2)
    losses = total(objective, objective.parts(student, teacher, torch.zeros(4, dtype=torch.int64)))
    torch.testing.assert_close(losses, divergence(student, teacher, temperature=3.0))
    assert objective.needs_teacher


def test_a_prediction_reads_the_gold_token_and_no_teacher():
    student, targets = random_logits(4, 9), torch.tensor([1, 0, 8, 3])
    losses = total(Prediction(), Prediction().parts(student, None, targets))
    torch.testing.assert_close(losses, cross_entropy(student, targets))
    assert not Prediction().needs_teacher


def test_a_head_is_its_formula():
    hidden, weight, bias = random_logits(4, 6, seed=1), random_logits(9, 6, seed=2), random_logits(9, seed=3)
    logits = Head(weight, bias, scale=0.25, softcap=3.0).logits(hidden)
    torch.testing.assert_close(logits, 3.0 * torch.tanh(0.25 * (hidden @ weight.T + bias) / 3.0))


def test_a_head_computes_in_float32_under_autocast():
    # Logits rounded to bfloat16 lose the gradient of a small KL.
    hidden, head = random_logits(4, 64).to(torch.bfloat16), Head(random_logits(50, 64).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head.logits(hidden)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, hidden.float() @ head.weight.T)
