"""The fused losses are the dense ones, for every divergence, head and chunk size, in value and gradient."""

import warnings
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afterword.objectives import (
    Comparison,
    Distillation,
    Head,
    Prediction,
    PredictionNear,
    SelfDistillation,
    closed_forms,
    forward_kl,
    hidden_losses,
    jsd,
    of_logprobs,
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
    "comparison": Comparison(),
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


@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_of_the_size_of_a_head_is_made_for_one_that_is_frozen(name, trained_head):
    positions, vocabulary, hidden = 4, 400, 300
    student = draw(positions, hidden, seed=1, dtype=torch.float32).requires_grad_()
    weight = (0.1 * draw(vocabulary, hidden, seed=2, dtype=torch.float32)).requires_grad_(trained_head)
    bias = draw(vocabulary, seed=3, dtype=torch.float32).requires_grad_(trained_head)
    teacher = draw(positions, hidden, seed=4, dtype=torch.float32), Head(weight.detach(), bias.detach())
    with Held() as held:
        loss, _ = weighted_sum(
            OBJECTIVES[name], (student, Head(weight, bias)), teacher, TARGETS[:positions], torch.ones(positions)
        )
        loss.backward()
    assert (weight.grad is not None) == (bias.grad is not None) == (held.most >= 4 * weight.numel()) == trained_head
    assert trained_head or held.most < weight.numel()


def far_apart(rows, *, vocabulary=VOCABULARY):
    """Logits: in every second row the student is sure of a token that has no probability in float32 for the teacher."""
    student = torch.zeros(rows, vocabulary)
    teacher = draw(rows, vocabulary, seed=1, dtype=torch.float32)
    student[1::4, 3], student[3::4, 5] = 90.0, 30.0
    teacher[1::4, 3], teacher[3::4, 5], teacher[3::4, 1] = -40.0, -150.0, 40.0
    return student, teacher


WITH_TEACHER = [name for name, objective in OBJECTIVES.items() if objective.needs_teacher]


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("name", WITH_TEACHER)
def test_rows_that_are_very_far_apart_are_right_too_and_are_warned_of(name, rows):
    objective, (student, teacher) = OBJECTIVES[name], far_apart(POSITIONS)
    student.requires_grad_()
    eye, weights = torch.eye(VOCABULARY), draw(POSITIONS, seed=2, dtype=torch.float32)
    sides = (student, Head(eye)), (teacher, Head(eye))
    with pytest.warns(
        UserWarning, match=rf"of {type(objective).__name__} \(.*\) does not hold .* than 60 nats.* dense logits"
    ):
        ours, parts = weighted_sum(objective, *sides, TARGETS, weights, workspace_mib=workspace(rows, objective))
    (mine,) = torch.autograd.grad(ours, student)
    exact_student = student.detach().double().requires_grad_()
    dense = objective.parts(exact_student, teacher.double(), TARGETS)
    (exact,) = torch.autograd.grad((weights * total(objective, dense)).sum(), exact_student)
    torch.testing.assert_close(parts.double(), dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="than 60 nats"):
        losses = hidden_losses(objective, *sides, TARGETS, workspace_mib=workspace(rows, objective))
    torch.testing.assert_close(losses, total(objective, parts))


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("few", [1, 5])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_that_are_taken_a_few_at_a_time_are_the_same(monkeypatch, name, few, apart, gradient):
    form, near = OBJECTIVES[name].form, draw(POSITIONS, VOCABULARY, seed=7, dtype=torch.float32)
    student, teacher = far_apart(POSITIONS) if apart else (near, draw(POSITIONS, VOCABULARY, seed=8).float())
    student[:5], teacher[:5] = near[:5], near[:5]  # One whole block in which no row is far.

    def found():
        """On copies: logits are overwritten."""
        given = (student.clone(), teacher.clone() if OBJECTIVES[name].needs_teacher else None, TARGETS)
        return closed_forms.evaluate(form, *given, gradient=gradient)

    whole = found()
    monkeypatch.setattr(closed_forms, "_CACHED_VALUES", few * VOCABULARY / torch.get_num_threads())
    calls = []
    inner = closed_forms._of_rows
    monkeypatch.setattr(closed_forms, "_of_rows", lambda *given: calls.append(len(given[1])) or inner(*given))
    parted = found()
    assert calls == [few] * (POSITIONS // few) + [POSITIONS % few] * bool(POSITIONS % few)
    assert (parted.far is None) == (whole.far is None) == (not apart or not OBJECTIVES[name].needs_teacher)
    assert parted.far is None or torch.equal(parted.far, whole.far)
    good = slice(None) if whole.far is None else ~whole.far
    for part in form.reported:
        torch.testing.assert_close(parted.parts[part][good], whole.parts[part][good])
    assert (parted.gradient is None) == (whole.gradient is None) == (not gradient)
    if gradient:
        torch.testing.assert_close(parted.gradient[good], whole.gradient[good])


def own_jsd(student, teacher, *, temperature):
    """A divergence that no one knows, and the one of most tensors."""
    return jsd(student, teacher, temperature=temperature)


OWN = Distillation(own_jsd, temperature=1.5)


@of_logprobs
def bhattacharyya(student, teacher):
    """−log Σ √(s p)."""
    return -((student + teacher) / 2).logsumexp(-1)


def test_a_divergence_of_log_probabilities_is_that_of_probabilities():
    """Written with probabilities, in float64, on dense logits; the training dtype is float32."""
    objective, tau = Distillation(bhattacharyya, temperature=2.0), 2.0
    assert list(objective.coefficients) == ["bhattacharyya_nats"]
    student, teacher = draw(POSITIONS, 6, seed=1), draw(POSITIONS, 9, seed=2)
    weight, teacher_weight = draw(VOCABULARY, 6, seed=3), draw(VOCABULARY, 9, seed=4)
    exact = student.clone().requires_grad_()
    s, p = ((h @ w.T / tau).softmax(-1) for h, w in ((exact, weight), (teacher, teacher_weight)))
    (-(tau**2) * (s * p).sqrt().sum(-1).log()).sum().backward()
    ours = student.float().requires_grad_()
    sides = (ours, Head(weight.float())), (teacher.float(), Head(teacher_weight.float()))
    with pytest.warns(UserWarning, match=r"12 float32 tensors .* at most 657,930 positions .* workspace of 512 MiB"):
        weighted_sum(objective, *sides, TARGETS, torch.ones(POSITIONS))[0].backward()
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_an_objective_without_a_closed_form_goes_through_dense_logits_and_says_so(kind):
    assert OWN.form is None
    student, teacher = draw(POSITIONS, 6, seed=1).requires_grad_(), draw(POSITIONS, 9, seed=2)
    weight, teacher_weight = draw(VOCABULARY, 6, seed=3).requires_grad_(), draw(VOCABULARY, 9, seed=4)
    heads, weights = (Head(each, **HEADS[kind]) for each in (weight, teacher_weight)), draw(POSITIONS, seed=5)
    with pytest.warns(UserWarning, match=r"Distillation \(own_jsd_nats\) has no closed form .* dense logits"):
        ours, parts = weighted_sum(OWN, *zip((student, teacher), heads, strict=True), TARGETS, weights)
    dense = OWN.parts(
        dense_logits(student, weight, **HEADS[kind]), dense_logits(teacher, teacher_weight, **HEADS[kind]), TARGETS
    )
    torch.testing.assert_close(parts, dense)
    leaves = [student, weight]
    found, exact = (torch.autograd.grad(each, leaves) for each in (ours, (weights * dense[:, 0]).sum()))
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("objective", [OWN, OBJECTIVES["forward_kl"]])
def test_a_user_reads_once_that_the_closed_form_is_not_used(objective):
    student, teacher = far_apart(POSITIONS)
    sides = (student.requires_grad_(), Head(torch.eye(VOCABULARY))), (teacher, Head(torch.eye(VOCABULARY)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            weighted_sum(objective, *sides, TARGETS, torch.ones(POSITIONS), workspace_mib=workspace(12))
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore:.* closed form")
@pytest.mark.parametrize("softcap", [None, 200.0])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", [*WITH_TEACHER, "own"])
def test_the_dense_path_stays_within_the_workspace_too(name, shared, softcap):
    """All rows are far apart."""
    objective, rows, vocabulary, hidden, positions = {**OBJECTIVES, "own": OWN}[name], 40, 3000, 2, 160
    student, teacher = torch.ones(positions, hidden).requires_grad_(), -torch.ones(positions, hidden)
    weight = draw(vocabulary, hidden, seed=3, dtype=torch.float32)
    weight[5] = 50.0
    heads = [Head(each, softcap=softcap) for each in (weight, weight if shared else weight * 1.1)]
    tensors = (objective.form.tensors if objective.form else 12) + (softcap is not None)
    mib = rows * 4 * vocabulary * tensors / 2**20
    sides, targets = ((student, heads[0]), (teacher, heads[1])), torch.zeros(positions, dtype=torch.int64)
    with Held() as held:
        weighted_sum(objective, *sides, targets, torch.ones(positions), workspace_mib=mib)
    assert 0.7 * mib * 2**20 < held.most < mib * 2**20 * 1.05
