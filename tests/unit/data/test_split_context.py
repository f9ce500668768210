"""Which targets are drawn, and that both sides predict the same tokens at aligned positions."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from afterword.data import STRATEGIES, SpecialTokens, SplitContext
from afterword.types import Window

NONE, BOS = SpecialTokens((), 1), SpecialTokens((0,), 1)
SENTENCES = ("sentence", "middle", "uniform_sentence", "all", "anchor")
TOKENS = ("random_token", "uniform_token", "random_token_suffix")


def window(lengths, *, first_new=0, anchor=0):
    """Sentences of the given lengths, made of the tokens 100, 101, …; the first few may be the title."""
    ids = np.arange(100, 100 + sum(lengths))
    starts = np.cumsum([0, *lengths])[:-1]
    return Window(0, "d", 0, ids, starts, first_new, True, ids[:anchor])


def random_window(rng, *, later):
    lengths = rng.integers(1, 9, size=rng.integers(2, 14)).tolist()
    first_new = int(rng.integers(1, len(lengths))) if later else 0
    return window(lengths, first_new=first_new, anchor=min(3, sum(lengths)))


def example(view, read, seed=0, special=NONE):
    return view.build(read, special, np.random.default_rng(seed))


def spans(view, read, seed=0):
    """Token offsets of the targets, recovered from what the student reads."""
    prefix = len(read.anchor_ids) if view.anchored else 0
    own = [segment.student_ids[prefix:] for segment in example(view, read, seed).segments]
    return [(int(ids[0]) - 100, int(ids[-1]) - 99) for ids in own]


def sentences(view, read, seed=0):
    bounds = [read.sentence(i) for i in range(len(read.sentence_starts))]
    return [bounds.index(span) for span in spans(view, read, seed)]


@pytest.mark.parametrize("strategy", ["sentence", "anchor"])
def test_the_last_sentence_always_and_the_others_equally_often(strategy):
    read, view, draws = window([3] * 25, anchor=2), SplitContext(strategy=strategy, targets=5), 2400
    found, sizes = Counter(), Counter()
    for seed in range(draws):
        drawn = sentences(view, read, seed)
        assert drawn == sorted(set(drawn))
        found.update(drawn)
        sizes[len(drawn)] += 1
    assert found[24] == draws
    assert found[0] == 0
    # Four of the sentences 1 … 24 are drawn; 5 standard deviations of a binomial either way.
    for i in range(1, 24):
        assert abs(found[i] - draws / 6) < 5 * (draws * 1 / 6 * 5 / 6) ** 0.5
    # The last one may be drawn twice: then there are 4 targets.
    assert set(sizes) == {4, 5}
    assert abs(sizes[4] - draws / 6) < 5 * (draws * 1 / 6 * 5 / 6) ** 0.5


@pytest.mark.parametrize(("targets", "expected"), [(1, [5]), (9, [1, 2, 3, 4, 5])])
def test_sentence_draws_by_hand(targets, expected):
    assert sentences(SplitContext(targets=targets), window([3] * 6)) == expected


@pytest.mark.parametrize(("n", "expected"), [(2, 1), (3, 1), (6, 3), (7, 3)])
def test_middle_is_sentence_n_half(n, expected):
    assert sentences(SplitContext(strategy="middle"), window([3] * n)) == [expected]


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [(11, 5, [2, 4, 6, 8, 10]), (4, 5, [1, 2, 3]), (8, 5, [1, 3, 4, 6, 7]), (2, 5, [1]), (10, 1, [9])],
)
def test_uniform_sentences_by_hand(n, k, expected):
    # Sentences max(1, round((n − 1) / k' · j)), j = 1 … k', k' = min(k, n − 1).
    assert sentences(SplitContext(strategy="uniform_sentence", targets=k), window([3] * n)) == expected


def test_all_is_every_sentence_but_the_first():
    assert sentences(SplitContext(strategy="all"), window([3] * 7)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("tokens", "k", "expected"), [(12, 3, [(3, 6), (6, 9), (9, 12)]), (10, 1, [(5, 10)]), (6, 9, [(2, 4)])]
)
def test_uniform_tokens_by_hand(tokens, k, expected):
    # Positions max(1, round(N / (k' + 1) · j)), k' = min(k, N − 2). For N = 6: 1, 2, 4, 5; only 2 … 4 is long enough.
    assert spans(SplitContext(strategy="uniform_token", targets=k), window([tokens])) == expected


def test_random_tokens_run_to_the_next_position_and_the_last_to_the_end():
    for seed in range(200):
        drawn = spans(SplitContext(strategy="random_token", targets=4), window([40]), seed)
        assert drawn[-1][1] == 40
        assert drawn[0][0] >= 1
        assert all(end - start >= 2 for start, end in drawn)
        assert all(end <= start for (_, end), (start, _) in pairwise(drawn))


@pytest.mark.parametrize("strategy", ["random_token", "random_token_suffix"])
def test_random_positions_are_every_token_but_the_first_and_the_last(strategy):
    view = SplitContext(strategy=strategy, targets=1)
    starts = Counter(spans(view, window([8]), seed)[0][0] for seed in range(600))
    assert sorted(starts) == [1, 2, 3, 4, 5, 6]
    assert all(abs(count - 100) < 50 for count in starts.values())


def test_as_many_positions_as_there_are_leave_the_one_target_that_is_long_enough():
    # N = 6: positions 1, 2, 3, 4 and targets of 1, 1, 1 and 2 tokens.
    assert spans(SplitContext(strategy="random_token", targets=9), window([6])) == [(4, 6)]


@pytest.mark.parametrize(("length", "ends"), [(3, lambda start: min(start + 3, 20)), (None, lambda start: 20)])
def test_suffix_targets_have_a_fixed_length_or_run_to_the_end(length, ends):
    view = SplitContext(strategy="random_token_suffix", targets=6, suffix_tokens=length)
    for seed in range(50):
        drawn = spans(view, window([20]), seed)
        assert len(drawn) == 6
        assert [end for _, end in drawn] == [ends(start) for start, _ in drawn]


def test_targets_under_two_tokens_are_left_out():
    assert sentences(SplitContext(strategy="all"), window([3, 1, 4, 1, 2])) == [2, 4]


def test_where_only_short_sentences_were_drawn_the_last_long_enough_is_the_target():
    assert sentences(SplitContext(targets=1), window([3, 5, 4, 1])) == [2]
    assert sentences(SplitContext(strategy="middle"), window([3, 4, 1, 1])) == [1]


@pytest.mark.parametrize("strategy", SENTENCES)
def test_windows_without_a_target_have_a_reason(strategy):
    view = SplitContext(strategy=strategy)
    assert view.skip_reason(window([9])) == "one_sentence"
    assert view.skip_reason(window([9, 1, 1])) == "too_short"
    assert view.skip_reason(window([9, 9, 1], first_new=2)) == "too_short"
    assert view.skip_reason(window([1, 2])) is None


@pytest.mark.parametrize("strategy", TOKENS)
def test_windows_of_too_few_tokens_have_a_reason(strategy):
    view = SplitContext(strategy=strategy)
    assert view.skip_reason(window([3])) == "too_short"
    assert view.skip_reason(window([9, 1], first_new=1)) == "too_short"
    assert view.skip_reason(window([4])) is None
    assert view.skip_reason(window([9, 2], first_new=1)) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_later_windows_train_only_what_is_new(strategy):
    rng, trained = np.random.default_rng(3), 0
    for seed in range(300):
        read, view = random_window(rng, later=True), SplitContext(strategy=strategy, targets=int(rng.integers(1, 7)))
        if view.skip_reason(read) is None:
            assert min(start for start, _ in spans(view, read, seed)) >= read.first_new_token
            trained += 1
    assert trained > 150


def test_later_windows_count_from_their_first_new_sentence():
    assert sentences(SplitContext(strategy="middle"), window([3] * 9, first_new=4)) == [6]
    assert sentences(SplitContext(strategy="uniform_sentence", targets=2), window([3] * 8, first_new=4)) == [5, 7]
    assert sentences(SplitContext(strategy="all"), window([3] * 6, first_new=4)) == [4, 5]


@pytest.mark.parametrize("averaging", ["document", "token"])
@pytest.mark.parametrize("special", [NONE, BOS], ids=["none", "bos"])
@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_both_views_predict_the_same_token_at_aligned_positions(strategy, later, special, averaging):
    rng = np.random.default_rng(7)
    for seed in range(60):
        read = random_window(rng, later=later)
        view = SplitContext(strategy=strategy, targets=int(rng.integers(1, 7)), averaging=averaging)
        if view.skip_reason(read):
            continue
        built = example(view, read, seed, special)
        bos = list(special.bos_ids)
        prefix = bos + (read.anchor_ids.tolist() if strategy == "anchor" else [])
        # The teacher reads the document as it is, from its beginning.
        length = len(built.teacher_ids) - len(bos)
        assert built.teacher_ids.tolist() == bos + read.token_ids[:length].tolist()
        weight = 0.0
        for segment in built.segments:
            assert segment.student_ids[: len(prefix)].tolist() == prefix
            own = segment.student_ids[len(prefix) :]
            start = int(own[0]) - 100
            assert own.tolist() == read.token_ids[start : start + len(own)].tolist()
            # Every token of the target but its first, at both sides.
            assert segment.target_ids.tolist() == own[1:].tolist()
            assert segment.student_ids[segment.student_positions + 1].tolist() == own[1:].tolist()
            assert built.teacher_ids[segment.teacher_positions + 1].tolist() == own[1:].tolist()
            assert (segment.teacher_positions - len(bos)).tolist() == list(range(start, start + len(own) - 1))
            assert segment.weights.dtype == np.float32
            weight += float(segment.weights.sum())
        positions = sum(len(segment.target_ids) for segment in built.segments)
        assert weight == pytest.approx(1 if averaging == "document" else positions, rel=1e-5)


def test_document_weights_are_a_mean_of_means_by_hand():
    built = example(SplitContext(strategy="all"), window([2, 3, 5]))
    assert [segment.weights.tolist() for segment in built.segments] == [[0.25, 0.25], [0.125] * 4]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_draws_the_same_targets(strategy):
    view, read = SplitContext(strategy=strategy), window([3] * 25, anchor=2)
    assert spans(view, read, seed=4) == spans(view, read, seed=4)
    different = {tuple(spans(view, read, seed)) for seed in range(10)}
    drawn = strategy in ("sentence", "anchor", "random_token", "random_token_suffix")
    assert (len(different) > 5) if drawn else (len(different) == 1)


def test_only_the_anchor_strategy_asks_for_titles():
    assert [strategy for strategy in STRATEGIES if SplitContext(strategy=strategy).anchored] == ["anchor"]


def test_there_are_eight_strategies():
    assert set(STRATEGIES) == {*SENTENCES, *TOKENS}
    assert len(STRATEGIES) == 8
