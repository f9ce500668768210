"""What holds of every text and every step: no token, target or example is lost, and everything fits."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.data import SpecialTokens, SplitContext, WholeDocument, WindowSettings, read_document
from afterword.data.batching import Packing, build_batch, micro_batches
from afterword.data.views import STRATEGIES
from afterword.types import Document, Example, Segment

EOS = 1
SPECIAL = st.sampled_from([SpecialTokens((), EOS), SpecialTokens((0,), EOS)])
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
SAID = st.one_of(WORD, st.sampled_from(["Mara", "ran.", "She", "slept!", "\n\n", "3.14", "e.g.", "。"]))
TEXT = st.lists(SAID, min_size=1).map(" ".join).filter(str.strip)
"""Anything that can be written, with ends of sentences and paragraphs in it. An empty text is no document."""
SETTINGS = st.builds(
    WindowSettings, max_length=st.integers(16, 60), window_overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75])
)


@given(text=TEXT, special=SPECIAL, how=SETTINGS, join=st.sampled_from(["document", "authors"]))
def test_every_token_is_new_in_exactly_one_window_that_fits(tokenizer, text, special, how, join):
    whole = read_document(
        Document("d", text), 0, tokenizer, special, WindowSettings(max_length=10**6, join=join)
    ).windows
    windows = read_document(Document("d", text), 0, tokenizer, special, replace(how, join=join)).windows
    found = [token for window in windows for token in window.token_ids[window.first_new_token :].tolist()]
    assert found == [token for window in whole for token in window.token_ids.tolist()]
    if join == "document":
        assert found == tokenizer(text, add_special_tokens=False).input_ids
    assert all(len(special.bos_ids) + len(window.token_ids) + 1 <= how.max_length for window in windows)
    assert [window.is_document_end for window in windows] == [False] * (len(windows) - 1) + [True] * bool(windows)


@given(text=TEXT, special=SPECIAL, how=SETTINGS)
def test_a_document_read_whole_trains_every_token_once_but_one_without_any_before_it(tokenizer, text, special, how):
    view, ids = WholeDocument(), tokenizer(text, add_special_tokens=False).input_ids
    windows = read_document(Document("d", text), 0, tokenizer, special, how).windows
    kept = [window for window in windows if view.skip_reason(window) is None]
    built = [view.build(window, special, np.random.default_rng(0)) for window in kept]
    trained = [token for example in built for segment in example.segments for token in segment.target_ids.tolist()]
    unread = [i for i, w in enumerate(kept) if not special.bos_ids and w.first_new_token == 0]
    # Without BOS the first token of a window without an overlap has nothing to be predicted from.
    assert len(trained) == (len(ids) + 1 - len(unread) if ids else 0)
    assert ids == [] or not unread or unread == [0] or how.window_overlap <= 0.1
    if unread in ([], [0]):
        assert trained == ([*ids, EOS][len(unread) :] if ids else [])


@given(text=TEXT, special=SPECIAL, how=SETTINGS, strategy=st.sampled_from(STRATEGIES), seed=st.integers(0, 9))
def test_split_contexts_train_what_is_new_and_the_teacher_reads_the_same_before_it(
    tokenizer, text, special, how, strategy, seed
):
    view = SplitContext(strategy=strategy, targets=3)
    how = replace(how, anchored=view.anchored, max_length=how.max_length + 32)  # Room for an anchor.
    read = read_document(Document("d", text), 0, tokenizer, special, how)
    for window in read.windows:
        if view.skip_reason(window) is not None:
            continue
        example = view.build(window, special, np.random.default_rng(seed))
        assert len(example.teacher_ids) < how.max_length
        for segment in example.segments:
            assert len(segment.target_ids)
            assert len(segment.student_ids) < how.max_length
            assert segment.student_ids[segment.student_positions + 1].tolist() == segment.target_ids.tolist()
            assert example.teacher_ids[segment.teacher_positions + 1].tolist() == segment.target_ids.tolist()
            assert segment.teacher_positions.min() >= len(special.bos_ids) + window.first_new_token
        assert sum(float(segment.weights.sum()) for segment in example.segments) == pytest.approx(1, rel=1e-5)


@st.composite
def steps(draw):
    """Examples of one step: of one to three terms, each with a teacher or without one."""
    taught = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    sizes = st.lists(st.integers(2, 30), min_size=1, max_size=5)
    found, token = [], 0
    for number, (lengths, term) in enumerate(
        draw(st.lists(st.tuples(sizes, st.integers(0, 2)), min_size=1, max_size=9))
    ):
        segments, at = [], 0
        for length in lengths:
            ids = np.arange(token, token + length)  # Every token is another.
            positions = np.arange(length - 1)
            weights = np.full(length - 1, 1 / (length - 1), np.float32)
            segments.append(Segment(ids, positions, positions + at, ids[1:], weights))
            token, at = token + length, at + length
        whole = np.concatenate([segment.student_ids for segment in segments]) if taught[term] else None
        found.append(Example(f"d{number}", number % 3, whole, tuple(segments), term))
    return found


@given(examples=steps(), budget=st.integers(8, 120), layout=st.sampled_from(["packed", "padded"]))
def test_batches_keep_their_budget_and_lose_nothing(examples, budget, layout):
    batches = micro_batches(examples, Packing(budget, layout))
    wanted = Counter(
        (token, weight, example.source, example.term)
        for example in examples
        for segment in example.segments
        for token, weight in zip(segment.target_ids.tolist(), segment.weights.tolist(), strict=True)
    )
    found = Counter(
        (token, weight, source, batch.term)
        for batch in batches
        for token, weight, source in zip(
            *(t.tolist() for t in (batch.target_ids, batch.weights, batch.sources)), strict=True
        )
    )
    assert found == wanted
    assert {name for batch in batches for name in batch.documents} == {example.document for example in examples}
    longest = max((len(example.teacher_ids) for example in examples if example.teacher_ids is not None), default=0)
    for batch in batches:
        sequences = len(set(batch.sequences.tolist()))
        assert batch.student.input_ids.numel() <= budget or sequences == 1
        if len(batch.documents) > 1 or not batch.teacher:  # Within an example that a teacher reads padding is not cut.
            assert batch.student.tokens >= 0.99 * batch.student.input_ids.numel()
        assert all(view.input_ids.numel() <= max(budget, longest) for view in batch.teacher)
        # Every token is another, so what stands after a trained position is what it is to predict.
        after = batch.student.input_ids.flatten()[batch.student.trained + 1]
        assert after.tolist() == batch.target_ids.tolist()
        if batch.teacher:
            read = [view.input_ids.flatten()[view.trained + 1].tolist() for view in batch.teacher]
            assert [token for view in read for token in view] == batch.target_ids.tolist()


@given(examples=steps(), budget=st.integers(8, 120), layout=st.sampled_from(["packed", "padded"]))
def test_the_weights_of_a_step_are_the_same_however_it_is_cut(examples, budget, layout):
    whole = sum(
        build_batch([e for e in examples if e.term == term]).total_weight for term in {e.term for e in examples}
    )
    cut = sum(batch.total_weight for batch in micro_batches(examples, Packing(budget, layout)))
    assert cut == pytest.approx(whole, rel=1e-9)
