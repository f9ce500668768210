"""Windows and micro-batches of whatever hypothesis thinks of: nothing is lost, added or moved, and limits hold."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from afterword.data import SpecialTokens, WindowSettings, read_document
from afterword.data.batching import Packing, micro_batches
from afterword.types import Document, Example, Segment

TEXTS = st.text(min_size=1, max_size=200).filter(str.strip)
# Words and ends of sentences, so that there is something to cut at.
WRITTEN = st.lists(st.sampled_from(["Mara", "naïve", "北京", "🙂", "3.14", "a", ". ", "! ", "\n\n", " "]), min_size=1)
LENGTHS = st.lists(st.lists(st.integers(2, 20), min_size=1, max_size=5), min_size=1, max_size=8)


@given(
    text=st.one_of(TEXTS, WRITTEN.map("".join).filter(str.strip)),
    bos=st.sampled_from([(), (0,)]),
    max_length=st.integers(10, 60),
    overlap=st.sampled_from([0.0, 0.25, 0.75]),
)
def test_windows_put_together_are_the_document(tokenizer, text, bos, max_length, overlap):
    how = WindowSettings(max_length=max_length, window_overlap=overlap)
    windows = read_document(Document("d", text), 0, tokenizer, SpecialTokens(bos, 1), how).windows
    new = [token for window in windows for token in window.token_ids[window.first_new_token :].tolist()]
    assert new == tokenizer(text, add_special_tokens=False).input_ids
    assert all(1 <= len(window.token_ids) <= max_length - len(bos) - 1 for window in windows)
    assert [bool(window.is_document_end) for window in windows] == [False] * (len(windows) - 1) + [True]


@given(
    lengths=LENGTHS,
    budget=st.integers(4, 80),
    layout=st.sampled_from(["packed", "padded"]),
    teacher=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_micro_batches_train_the_tokens_of_the_step_with_their_weights(lengths, budget, layout, teacher, seed):
    rng = np.random.default_rng(seed)
    examples = [_example(rng, f"d{i}", each, teacher) for i, each in enumerate(lengths)]
    batches = micro_batches(examples, Packing(budget, layout))
    segments = [segment for example in examples for segment in example.segments]
    assert _trained(batches) == _trained(segments)
    for batch in batches:
        assert batch.student.tokens <= budget or len(batch.sequences.unique()) == 1
        assert (batch.teacher == ()) == (not teacher)


def _example(rng, name, lengths, teacher):
    segments, start = [], 0
    for length in lengths:
        ids = rng.integers(5, 300, length)
        positions = np.arange(int(rng.integers(0, length - 1)), length - 1)
        weights = rng.random(len(positions)).astype(np.float32)
        segments.append(Segment(ids, positions, positions + start, ids[positions + 1], weights))
        start += length
    ids = np.concatenate([segment.student_ids for segment in segments]) if teacher else None
    return Example(name, 0, ids, tuple(segments))


def _trained(items):
    """How often each target is trained with each weight."""
    return Counter(pair for item in items for pair in zip(item.target_ids.tolist(), item.weights.tolist(), strict=True))
