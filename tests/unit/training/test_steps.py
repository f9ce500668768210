"""Steps are a function of (seed, epoch): every window once, the same on every process and in every run."""

import numpy as np
import pytest

from afterword.training.steps import StepPlan, StepSampler

LENGTHS = np.random.default_rng(0).integers(20, 400, 57)
PLANS = {
    "one_document": {},
    "four_documents": {"documents_per_step": 4},
    "more_than_there_are": {"documents_per_step": 100},
    "tokens": {"step_tokens": 1500},
    "few_tokens": {"step_tokens": 10},
    "many_tokens": {"step_tokens": 10**6},
}


def plan(name="one_document", lengths=LENGTHS, **changes):
    return StepPlan(lengths, **{**PLANS[name], **changes})


def order(steps):
    return np.concatenate(steps).tolist()


@pytest.mark.parametrize("name", PLANS)
def test_every_window_is_trained_once_an_epoch(name):
    for epoch in range(5):
        assert sorted(order(plan(name).steps(epoch))) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("name", PLANS)
def test_every_epoch_has_the_same_number_of_steps_and_none_is_empty(name):
    for epoch in range(20):
        steps = plan(name).steps(epoch)
        assert len(steps) == plan(name).steps_per_epoch
        assert all(len(step) for step in steps)


@pytest.mark.parametrize("name", PLANS)
def test_the_order_differs_between_epochs_and_seeds_and_not_between_runs(name):
    assert order(plan(name).steps(3)) == order(plan(name).steps(3))
    assert order(plan(name).steps(3)) != order(plan(name).steps(4))
    assert order(plan(name).steps(3)) != order(plan(name, seed=1).steps(3))


@pytest.mark.parametrize(("documents", "per_step", "sizes"), [(9, 2, [2, 2, 2, 2, 1]), (8, 4, [4, 4]), (3, 5, [3])])
def test_documents_a_step_by_hand(documents, per_step, sizes):
    steps = StepPlan(np.full(documents, 10), per_step).steps(0)
    assert [len(step) for step in steps] == sizes


@pytest.mark.parametrize("target", [1000, 2500, 4000])
def test_steps_of_tokens_are_near_their_target(target):
    rng = np.random.default_rng(1)
    for epoch in range(20):
        lengths = rng.integers(20, 400, 60)
        chosen = StepPlan(lengths, step_tokens=target)
        share = lengths.sum() / chosen.steps_per_epoch
        assert abs(share - target) <= target / 4
        for step in chosen.steps(epoch):
            assert abs(lengths[step].sum() - share) <= lengths.max()


def test_steps_of_tokens_by_hand():
    steps = StepPlan(np.full(12, 100), step_tokens=300).steps(0)
    assert [len(step) for step in steps] == [3, 3, 3, 3]


def test_a_window_longer_than_a_step_is_a_step():
    lengths = np.array([1000, 10, 10, 10])
    for epoch in range(10):
        steps = StepPlan(lengths, step_tokens=100).steps(epoch)
        assert len(steps) == 4
        assert all(len(step) == 1 for step in steps)


def samplers(chosen, processes, accumulation, epoch=0):
    made = [StepSampler(chosen, processes, process, accumulation) for process in range(processes)]
    for sampler in made:
        sampler.set_epoch(epoch)
    return made


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (1, 3), (2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize("name", PLANS)
def test_the_processes_of_a_step_together_train_the_step(name, processes, accumulation):
    chosen = plan(name)
    for epoch in (0, 3):
        drawn = [list(sampler) for sampler in samplers(chosen, processes, accumulation, epoch)]
        steps = chosen.steps(epoch)
        assert {len(lists) for lists in drawn} == {len(steps) * accumulation}
        for i, step in enumerate(steps):
            mine = [lists[i * accumulation + part] for lists in drawn for part in range(accumulation)]
            assert all(mine)
            assert sorted(d.window for draws in mine for d in draws if d.weighted) == sorted(step.tolist())
            assert {d.epoch for draws in mine for d in draws} == {epoch}
            # A repeat without weight only where the process would have nothing, and never beside a window that counts.
            empty = max(0, processes * accumulation - len(step))
            repeats = [draws for draws in mine if not all(d.weighted for d in draws)]
            assert len(repeats) == empty
            assert all(len(draws) == 1 and draws[0].window in step for draws in repeats)


def test_nine_documents_on_two_processes_are_nine_weighted_visits():
    first, second = samplers(StepPlan(np.full(9, 10), documents_per_step=2), 2, 1)
    draws = [draw for lists in (first, second) for draws in lists for draw in draws]
    assert len(draws) == 10
    assert sorted(draw.window for draw in draws if draw.weighted) == list(range(9))


def test_windows_are_spread_evenly_over_processes():
    drawn = samplers(StepPlan(np.full(10, 10), documents_per_step=10), 3, 1)
    assert sorted(len(next(iter(sampler))) for sampler in drawn) == [3, 3, 4]


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("name", PLANS)
def test_the_length_of_a_sampler_is_how_many_lists_it_gives(name, accumulation):
    for epoch in range(4):
        (sampler,) = samplers(plan(name), 1, accumulation, epoch)
        assert len(sampler) == len(list(sampler))
