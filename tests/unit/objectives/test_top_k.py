"""The k likeliest tokens of a teacher: by hand, exact where nothing is left out, and how far from it else."""

import math

import pytest
import torch

from afterword.objectives import (
    AdaptivePrediction,
    Distillation,
    Head,
    Prediction,
    PredictionNear,
    SelfDistillation,
    TopK,
    forward_kl,
    jsd,
    keeps_enough,
    reverse_kl,
    temperatures_of,
    top_k_weighted_sum,
    weighted_sum,
)

V, H, N = 300, 32, 40
OBJECTIVES = {
    "disc": Distillation(forward_kl, temperature=2.0),
    "kl": Distillation(forward_kl),
    "near": PredictionNear(beta=0.3),
    "warm near": PredictionNear(beta=0.3, temperature=2.0),
    "swap": SelfDistillation(alpha=0.5),
    "warm swap": SelfDistillation(alpha=0.3, temperature=2.0),
    "unswapped": SelfDistillation(alpha=0.5, swap=False),
}


@pytest.fixture(scope="module")
def sides():
    """Student and teacher states with one head, gold tokens (some the teacher's first), weights. A peaked teacher."""
    make = torch.Generator().manual_seed(0)
    weight = torch.randn(V, H, generator=make, dtype=torch.float64)
    teacher = torch.randn(N, H, generator=make, dtype=torch.float64)
    student = teacher + 0.2 * torch.randn(N, H, generator=make, dtype=torch.float64)
    head, bias = Head(weight), torch.randn(V, generator=make, dtype=torch.float64)
    gold = torch.randint(V, (N,), generator=make)
    gold[::3] = head.logits(teacher)[::3].argmax(-1)
    return student, teacher, Head(weight, bias, scale=0.9, softcap=14.0), gold, torch.rand(N, generator=make)


def test_what_is_left_out_is_the_mass_of_all_that_is_neither_kept_nor_gold(sides):
    _, teacher, head, gold, _ = sides
    logits, kept = head.logits(teacher), TopK(5, (1.0, 2.0))
    found = kept.left_out(kept.pack(logits, gold))
    for place, temperature in enumerate(kept.temperatures):
        probabilities = (logits / temperature).softmax(-1)
        known = probabilities.topk(5).indices
        by_hand = [
            1 - sum(p[token] for token in {*ids.tolist(), int(y)})
            for p, ids, y in zip(probabilities, known, gold, strict=True)
        ]
        torch.testing.assert_close(found[:, place], torch.stack(by_hand))
    whole = TopK(V, (1.0,))
    assert not whole.left_out(whole.pack(logits, gold)).any()


def gradients(objective, sides, k=None):
    """(Σ weight · loss, parts, gradients on states, head and bias); exact without k."""
    student, teacher, head, gold, weights = sides
    leaves = [t.clone().requires_grad_() for t in (student, head.weight, head.bias)]
    own = Head(leaves[1], leaves[2], head.scale, head.softcap)
    if k is None:
        loss, parts = weighted_sum(objective, (leaves[0], own), (teacher, head), gold, weights, workspace_mib=0.02)
    else:
        kept = TopK(k, temperatures_of([objective]))
        given = kept.pack(head.logits(teacher), gold), kept
        loss, parts = top_k_weighted_sum(objective, (leaves[0], own), given, gold, weights, workspace_mib=0.02)
    loss.backward()
    return loss.detach(), parts, [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_is_approximated_once_k_is_the_vocabulary(name, sides):
    expected, found = gradients(OBJECTIVES[name], sides), gradients(OBJECTIVES[name], sides, k=V)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_token_less_than_all_leaves_a_rest_of_one_which_is_exact_too(name, sides):
    expected, found = gradients(OBJECTIVES[name], sides), gradients(OBJECTIVES[name], sides, k=V - 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def error(name, sides, k):
    (_, _, exact), (_, _, found) = gradients(OBJECTIVES[name], sides), gradients(OBJECTIVES[name], sides, k=k)
    return float((found[0] - exact[0]).norm() / exact[0].norm())


# Relative, at k = 8 and 64, of a teacher whose 8 likeliest tokens have 77 % of the mass and whose 64 have 99.3 %; at
# τ = 2 (disc) these are 38 % and 87 %, and k has to be larger for it. Beside a prediction the KL is a small part.
MEASURED = {"kl": (0.38, 0.017), "disc": (0.79, 0.23), "swap": (0.026, 0.0012), "near": (0.010, 0.00048)}


@pytest.mark.parametrize("name", MEASURED)
def test_the_error_of_the_gradient_falls_with_k(name, sides):
    eight, sixty_four, all_of_them = (error(name, sides, k) for k in (8, 64, V))
    assert all_of_them < 1e-12
    assert (eight, sixty_four) == pytest.approx(MEASURED[name], rel=0.2)


def test_by_hand():
    # p = (½, ¼, ⅛, ⅛), s = (¼, ¼, ¼, ¼), k = 1, gold 2: outcomes 0, 2 and the rest {1, 3}.
    teacher, student = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log(), torch.zeros(1, 4)
    kept, gold = TopK(1), torch.tensor([2])
    rows = kept.pack(teacher, gold)
    assert rows.shape == (1, kept.width) == (1, 5)
    expected = 0.5 * math.log(2) + 0.125 * math.log(0.5) + 0.375 * math.log(0.375 / 0.5)
    assert float(kept.kl(student, rows, gold, 1.0, swap=False)) == pytest.approx(expected, rel=1e-6)
    swapped = 0.125 * math.log(0.5) + 0.5 * math.log(2) + 0.375 * math.log(0.375 / 0.5)
    assert float(kept.kl(student, rows, gold, 1.0, swap=True)) == pytest.approx(swapped, rel=1e-6)


@pytest.mark.parametrize("k", [1, 8, 64])
def test_it_is_never_more_than_the_exact_divergence(k, sides):
    student, teacher, head, gold, _ = sides
    kept = TopK(k)
    found = kept.kl(head.logits(student), kept.pack(head.logits(teacher), gold), gold, 1.0, swap=False)
    exact = forward_kl(head.logits(student), head.logits(teacher))
    assert (found <= exact + 1e-12).all()
    assert (found >= 0).all()


def test_its_gradient_is_the_documented_one(sides):
    student, teacher, head, gold, _ = sides
    kept, logits = TopK(8), head.logits(student).requires_grad_()
    rows = kept.pack(head.logits(teacher), gold)
    kept.kl(logits, rows, gold, 1.0, swap=False).sum().backward()
    p, s = head.logits(teacher).softmax(-1), logits.detach().softmax(-1)
    listed = torch.zeros(N, V, dtype=torch.bool).scatter(-1, torch.cat([kept.ids(rows), gold[:, None]], -1), True)
    p_rest, s_rest = ((x * ~listed).sum(-1, keepdim=True) for x in (p, s))
    torch.testing.assert_close(logits.grad, torch.where(listed, s - p, s * (1 - p_rest / s_rest)))


def test_a_teacher_that_agrees_moves_nothing(sides):
    _, teacher, head, gold, weights = sides
    for k in (1, 64, V):
        _, _, (on_states, *_) = gradients(OBJECTIVES["kl"], (teacher, teacher, head, gold, weights), k=k)
        assert on_states.norm() < 1e-12


def test_rows_in_float32_keep_ids(sides):
    _, teacher, head, gold, _ = sides
    logits = head.logits(teacher)
    rows = TopK(16).pack(logits.float(), gold)
    assert rows.dtype == torch.float32
    assert torch.equal(TopK(16).ids(rows), logits.topk(16).indices)


def test_parts_are_reported_without_gradient_too(sides):
    student, teacher, head, gold, weights = sides
    objective, kept = OBJECTIVES["swap"], TopK(64, (1.0,))
    given = kept.pack(head.logits(teacher), gold), kept
    with torch.no_grad():
        loss, parts = top_k_weighted_sum(objective, (student, head), given, gold, weights)
    expected_loss, expected, _ = gradients(objective, sides, k=64)
    torch.testing.assert_close((loss, parts), (expected_loss, expected))
    _, exact, _ = gradients(objective, sides)
    # How often the teacher has the gold token first, and its probability, are exact at any k.
    torch.testing.assert_close(parts[:, 2:], exact[:, 2:])


def test_what_k_tokens_are_enough_for():
    assert all(keeps_enough(each) for each in (*OBJECTIVES.values(), Prediction(), AdaptivePrediction()))
    assert keeps_enough(SelfDistillation(alpha=1.0, direction="reverse"))
    assert not any(
        keeps_enough(each)
        for each in (Distillation(reverse_kl), Distillation(jsd), SelfDistillation(direction="reverse"))
    )
    assert temperatures_of([Prediction(), OBJECTIVES["disc"], OBJECTIVES["kl"]]) == (1.0, 2.0)
