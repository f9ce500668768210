"""What a process is given to train depends on (seed, epoch, window) alone."""

import numpy as np
import pytest
import torch

from afterword.corpus import read_corpus
from afterword.data import WindowSettings, prepare, special_tokens
from afterword.data.batching import Packing
from afterword.methods import METHODS
from afterword.training.sources import Source
from afterword.training.steps import ExampleKey, Examples, StepPlan, StepSampler, build_loader

ROWS = [{"id": f"d{i}", "text": " ".join(f"Note {i} has part {j} here." for j in range(12))} for i in range(5)]


@pytest.fixture(scope="module")
def examples(tokenizer, tmp_path_factory):
    """Examples of any method over five documents of twelve sentences."""
    folder = tmp_path_factory.mktemp("loader")
    corpus = read_corpus(ROWS, cache_dir=folder)

    def build(method, seed=0):
        special = special_tokens(tokenizer, method.view.bos, method.view.join)
        path = folder / f"{method.name}.arrow"
        windows = prepare(corpus, tokenizer, special, WindowSettings(max_length=1000), method.view, path)
        return Examples((Source("documents", windows, special),), method.terms(general=()), seed)

    return build


def read(example):
    return [(s.student_ids.tolist(), s.weights.tolist()) for s in example.segments]


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_the_same_seed_epoch_and_window_is_the_same_example(method, examples):
    again = list(reversed([read(examples(method)[ExampleKey(i, 2)]) for i in reversed(range(5))]))
    assert [read(examples(method)[ExampleKey(i, 2)]) for i in range(5)] == again


def test_another_epoch_another_window_and_another_seed_draw_anew(examples):
    method = METHODS["disc"]
    drawn = {str(read(examples(method, seed)[ExampleKey(0, epoch)])) for seed in range(3) for epoch in range(4)}
    assert len(drawn) > 9
    # The windows hold the same number of sentences, so the same generator would draw the same sentences.
    firsts = [tuple(s.teacher_positions[0] for s in examples(method)[ExampleKey(i, 0)].segments) for i in range(5)]
    assert len(set(firsts)) > 1


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_a_teachers_view_is_built_exactly_where_the_objective_reads_it(method, examples):
    example = examples(method)[ExampleKey(0, 0)]
    assert (example.teacher_ids is not None) == method.objective.needs_teacher


def test_a_repeat_has_no_weight(examples):
    method = METHODS["disc"]
    repeated = examples(method)[ExampleKey(0, 0, weighted=False)]
    assert sum(segment.weights.sum() for segment in repeated.segments) == 0
    assert [ids for ids, _ in read(repeated)] == [ids for ids, _ in read(examples(method)[ExampleKey(0, 0)])]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_change_nothing_and_draw_nothing_from_the_global_generator(workers, examples):
    made = examples(METHODS["disc"])
    sampler = StepSampler(StepPlan(made.sources[0].windows.lengths, documents_per_step=2, seed=4))
    loader = build_loader(made, sampler, Packing(64), workers=workers)
    loader.set_epoch(1)
    before = torch.get_rng_state()
    found = [[batch.student.input_ids.tolist() for batch in batches] for batches in loader]
    assert torch.equal(torch.get_rng_state(), before)
    sampler.set_epoch(1)
    plain = [[made[draw] for draw in draws] for draws in sampler]
    assert len(found) == len(loader) == 3
    for batches, drawn in zip(found, plain, strict=True):
        own = np.concatenate([s.student_ids for example in drawn for s in example.segments]).tolist()
        assert [token for rows in batches for token in rows[0]] == own
