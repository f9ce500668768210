"""The fused losses are the dense ones, for every divergence, head and chunk size, in value and gradient."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    rows_per_chunk,
    total,
    weighted_sum,
)

POSITIONS, VOCABULARY = 13, 17
OBJECTIVES = {
    "forward_kl": Distillation(forward_kl, temperature=2.0),
    "reverse_kl": Distillation(reverse_kl, temperature=1.5),
    "jsd": Distillation(jsd),
    "cross_entropy": Prediction(),
    "prediction_near": PredictionNear(beta=0.3, temperature=1.5),
    "swap": SelfDistillation(alpha=0.3, temperature=2.0),
    "swap_reverse": SelfDistillation(alpha=0.3, direction="reverse"),
    "no_swap": SelfDistillation(alpha=0.6, temperature=2.0, swap=False),
    "no_teacher": SelfDistillation(alpha=1.0),
}
HEADS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.0},
    "scale_and_softcap": {"scale": 1.7, "softcap": 4.0},
}


def workspace(rows, objective=None, *, capped=False):
    """MiB that hold so many rows of all float32 tensors over the vocabulary that an objective has at a time."""
    return rows * 4 * VOCABULARY * ((objective.form.tensors if objective else 1) + capped) / 2**20


def draw(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense_losses(objective, student, teacher, targets):
    return total(objective, objective.parts(student, teacher, targets))


def dense_logits(hidden, weight, bias=None, scale=1.0, softcap=None):
    logits = hidden @ weight.T
    logits = scale * (logits if bias is None else logits + bias)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


TARGETS = torch.randint(VOCABULARY, (POSITIONS,), generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("rows", [1, 4, POSITIONS - 1, POSITIONS, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_fused_is_dense_in_value_and_gradient(name, kind, with_bias, rows):
    objective, extra = OBJECTIVES[name], HEADS[kind]
    # Student and teacher of different hidden sizes.
    student, teacher = draw(POSITIONS, 6, seed=1).requires_grad_(), draw(POSITIONS, 9, seed=2)
    weight = draw(VOCABULARY, 6, seed=3).requires_grad_()
    bias = draw(VOCABULARY, seed=4).requires_grad_() if with_bias else None
    teacher_weight = draw(VOCABULARY, 9, seed=5)
    factors = draw(POSITIONS, seed=6)
    leaves = [student, weight, *([bias] if with_bias else [])]

    ours, parts = weighted_sum(
        objective,
        (student, Head(weight, bias, **extra)),
        (teacher, Head(teacher_weight, **extra)),
        TARGETS,
        factors,
        workspace_mib=workspace(rows, objective, capped="softcap" in extra),
    )
    dense = objective.parts(
        dense_logits(student, weight, bias, **extra), dense_logits(teacher, teacher_weight, **extra), TARGETS
    )
    whole = (factors * total(objective, dense)).sum()
    torch.testing.assert_close(parts, dense)
    torch.testing.assert_close(ours, whole)
    # Not of the sum alone: whatever it is multiplied with later counts.
    for mine, exact in zip(
        torch.autograd.grad(0.7 * ours, leaves), torch.autograd.grad(0.7 * whole, leaves), strict=True
    ):
        torch.testing.assert_close(mine, exact)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_tied_weights_get_the_gradient_of_both_their_uses(name):
    objective, ids = OBJECTIVES[name], TARGETS.flip(0)
    embedding, mixing = draw(VOCABULARY, 6, seed=1).requires_grad_(), draw(6, 6, seed=2)
    teacher_weight = draw(VOCABULARY, 6, seed=3)
    hidden = torch.tanh(embedding[ids] @ mixing)
    teacher = torch.tanh(teacher_weight[ids] @ mixing)
    sides = (hidden, Head(embedding)), (teacher, Head(teacher_weight))
    ours, _ = weighted_sum(objective, *sides, TARGETS, torch.ones(POSITIONS), workspace_mib=workspace(5, objective))
    dense = dense_losses(objective, hidden @ embedding.T, teacher @ teacher_weight.T, TARGETS)
    (mine,) = torch.autograd.grad(ours, embedding, retain_graph=True)
    (exact,) = torch.autograd.grad(dense.sum(), embedding)
    torch.testing.assert_close(mine, exact)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_bfloat16_teacher_beside_a_float32_student_is_computed_in_float32(name):
    objective = OBJECTIVES[name]
    student, weight = draw(POSITIONS, 6, seed=1, dtype=torch.float32), draw(VOCABULARY, 6, seed=2, dtype=torch.float32)
    teacher, teacher_weight = (
        draw(POSITIONS, 9, seed=3, dtype=torch.bfloat16),
        draw(VOCABULARY, 9, seed=4, dtype=torch.bfloat16),
    )
    ours = hidden_losses(
        objective,
        (student, Head(weight)),
        (teacher, Head(teacher_weight)),
        TARGETS,
        workspace_mib=workspace(3, objective),
    )
    assert ours.dtype == torch.float32
    dense = dense_losses(
        objective, student.double() @ weight.double().T, teacher.double() @ teacher_weight.double().T, TARGETS
    )
    torch.testing.assert_close(ours.double(), dense, rtol=1e-4, atol=1e-5)


def test_the_teacher_gets_no_gradient():
    student, weight = draw(POSITIONS, 6, seed=1).requires_grad_(), draw(VOCABULARY, 6, seed=2).requires_grad_()
    teacher, teacher_weight = draw(POSITIONS, 6, seed=3).requires_grad_(), draw(VOCABULARY, 6, seed=4).requires_grad_()
    sides = (student, Head(weight)), (teacher, Head(teacher_weight))
    weighted_sum(OBJECTIVES["forward_kl"], *sides, TARGETS, torch.ones(POSITIONS))[0].backward()
    assert teacher.grad is None
    assert teacher_weight.grad is None
    assert student.grad.norm() > 0
    assert weight.grad.norm() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_gradients_the_losses_are_the_same(name):
    objective = OBJECTIVES[name]
    student, head = draw(POSITIONS, 6, seed=1).requires_grad_(), Head(draw(VOCABULARY, 6, seed=2))
    teacher, weights = (draw(POSITIONS, 6, seed=3), head), draw(POSITIONS, seed=4)
    with_gradient, parts = weighted_sum(objective, (student, head), teacher, TARGETS, weights)
    with torch.no_grad():
        without, same_parts = weighted_sum(objective, (student, head), teacher, TARGETS, weights)
    losses = hidden_losses(objective, (student, head), teacher, TARGETS, workspace_mib=workspace(2, objective))
    assert not without.requires_grad
    assert not losses.requires_grad
    torch.testing.assert_close(without, with_gradient.detach())
    torch.testing.assert_close(same_parts, parts)
    torch.testing.assert_close((weights * losses).sum(), without)


def test_rows_of_a_chunk_fill_the_workspace_and_are_never_none():
    assert rows_per_chunk(VOCABULARY, workspace(3)) == 3
    assert rows_per_chunk(VOCABULARY, workspace(3.99)) == 3
    assert rows_per_chunk(2**18, 64) == 64
    assert rows_per_chunk(2**18, 64, tensors=3) == 21
    assert rows_per_chunk(10**9, 1e-6) == 1


class LargestTensor(TorchDispatchMode):
    """Watches every result of every operation."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_logits_of_a_whole_batch_never_exist(name):
    positions, vocabulary, hidden, rows = 512, 600, 8, 4
    student = draw(positions, hidden, seed=1, dtype=torch.float32).requires_grad_()
    weight = draw(vocabulary, hidden, seed=2, dtype=torch.float32).requires_grad_()
    teacher = draw(positions, hidden, seed=3, dtype=torch.float32)
    targets = torch.zeros(positions, dtype=torch.int64)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with LargestTensor() as watch:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = weighted_sum(
                OBJECTIVES[name],
                (student, Head(weight)),
                (teacher, Head(weight.detach() * 1.1)),
                targets,
                torch.ones(positions),
                workspace_mib=rows * 4 * vocabulary * OBJECTIVES[name].form.tensors / 2**20,
            )
        loss.backward()
    # The weight itself is the largest thing there is; all logits would be 64 times as much.
    assert watch.elements == vocabulary * hidden
    # And nothing of a chunk's logits waits for the backward pass.
    assert sum(kept) < positions * vocabulary / 10


class Held(TorchDispatchMode):
    """Bytes of all storages that operations made and nobody has given back."""

    def __init__(self):
        super().__init__()
        self.bytes = self.most = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for storage in (each.untyped_storage() for each in tree_leaves(result) if isinstance(each, torch.Tensor)):
            if id(storage) not in given and storage not in self.known:
                self.known.add(storage)
                self.bytes += storage.nbytes()
                self.most = max(self.most, self.bytes)
                weakref.finalize(storage, self.give_back, storage.nbytes())
        return result

    def give_back(self, size):
        self.bytes -= size


@pytest.mark.parametrize("kind", ["plain", "softcap"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_everything_over_the_vocabulary_stays_within_the_workspace(name, shared, kind):
    objective, rows, vocabulary, hidden, positions = OBJECTIVES[name], 40, 3000, 2, 160
    student = draw(positions, hidden, seed=1, dtype=torch.float32).requires_grad_()
    teacher = draw(positions, hidden, seed=2, dtype=torch.float32)
    weight = draw(vocabulary, hidden, seed=3, dtype=torch.float32)
    heads = [Head(each, **HEADS[kind]) for each in (weight, weight if shared else weight * 1.1)]
    tensors = objective.form.tensors + (kind == "softcap")
    mib = rows * 4 * vocabulary * tensors / 2**20
    sides, targets = ((student, heads[0]), (teacher, heads[1])), torch.zeros(positions, dtype=torch.int64)
    with Held() as held:
        weighted_sum(objective, *sides, targets, torch.ones(positions), workspace_mib=mib)
    # As much as is promised, and what is not over the vocabulary.
    assert mib * 2**20 * (tensors - 0.5) / tensors < held.most < mib * 2**20 * 1.05


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_that_both_read_gives_what_two_equal_ones_give(name, kind):
    student, teacher = draw(POSITIONS, 6, seed=1).requires_grad_(), draw(POSITIONS, 6, seed=2)
    weight, bias, weights = draw(VOCABULARY, 6, seed=3), draw(VOCABULARY, seed=4), draw(POSITIONS, seed=5)
    extra, found = HEADS[kind], []
    for other in (Head(weight, bias, **extra), Head(weight.clone(), bias.clone(), **extra)):
        sides = (student, Head(weight, bias, **extra)), (teacher, other)
        loss, parts = weighted_sum(OBJECTIVES[name], *sides, TARGETS, weights)
        found.append((loss, parts, *torch.autograd.grad(loss, student)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_heads_are_the_same_only_where_everything_of_them_is():
    weight, bias = draw(VOCABULARY, 6, seed=3), draw(VOCABULARY, seed=4)
    head = Head(weight, bias, 0.5)
    assert head.is_same_as(Head(weight.detach(), bias.detach(), 0.5))
    for other in (Head(weight.clone(), bias, 0.5), Head(weight, bias.clone(), 0.5), Head(weight, bias)):
        assert not head.is_same_as(other)
    assert not head.is_same_as(Head(weight, None, 0.5))
    assert not head.is_same_as(Head(weight[:-1], bias, 0.5))
    assert not head.is_same_as(Head(weight, bias, 0.5, 30.0))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_are_very_far_apart_are_right_too(name):
    """The student is sure of a token that has no probability in float32 for the teacher, in two rows of four."""
    student, teacher = torch.zeros(4, VOCABULARY), draw(4, VOCABULARY, seed=1, dtype=torch.float32)
    student[1, 3], student[2, 5], teacher[1, 3], teacher[2, 5], teacher[2, 1] = 90.0, 30.0, -40.0, -150.0, 40.0
    student.requires_grad_()
    eye, ids, weights = torch.eye(VOCABULARY), TARGETS[:4], torch.tensor([0.5, 2.0, 1.0, 1.0])
    sides = (student, Head(eye)), (teacher, Head(eye))
    ours, parts = weighted_sum(OBJECTIVES[name], *sides, ids, weights)
    (mine,) = torch.autograd.grad(ours, student)
    exact_student = student.detach().double().requires_grad_()
    dense = OBJECTIVES[name].parts(exact_student, teacher.double(), ids)
    (exact,) = torch.autograd.grad((weights * total(OBJECTIVES[name], dense)).sum(), exact_student)
    torch.testing.assert_close(parts.double(), dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-5)


def near(dtype, kl, *, positions=64, vocabulary=2000, hidden=128):
    """Hidden states and a head of a precision, the teacher's so near the student's that their KL is about `kl` nats."""
    head = (draw(vocabulary, hidden, seed=1) * 4 / hidden**0.5).to(dtype)
    student = draw(positions, hidden, seed=2).to(dtype)
    moved = student + draw(positions, hidden, seed=3).to(dtype) * (kl**0.5 / 2.5)
    return student, moved.to(dtype), head


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("kl", [5e-1, 5e-2, 5e-3, 5e-4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "swap", "swap_reverse", "no_swap"])
def test_near_the_teacher_nothing_is_rounded_away(name, dtype, kl, trained_head):
    objective, (student, teacher, weight) = OBJECTIVES[name], near(dtype, kl)
    ids = torch.arange(64) * 31
    student.requires_grad_()
    weight.requires_grad_(trained_head)
    sides = (student, Head(weight)), (teacher, Head(weight.detach()))
    ours, parts = weighted_sum(objective, *sides, ids, torch.ones(64))
    leaves = [student, weight] if trained_head else [student]
    mine = torch.autograd.grad(ours, leaves)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact_weight = exact_leaves[1] if trained_head else weight.double()
    dense = objective.parts(exact_leaves[0] @ exact_weight.T, teacher.double() @ weight.detach().double().T, ids)
    exact = torch.autograd.grad(total(objective, dense).sum(), exact_leaves)
    torch.testing.assert_close(parts.double(), dense, rtol=1e-3, atol=1e-9 if dtype == torch.float32 else 1e-8)
    for got, wanted in zip(mine, exact, strict=True):
        assert (got.double() - wanted).norm() < 5e-3 * wanted.norm()
