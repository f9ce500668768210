"""Pieces of documents: where they end, and what each side reads of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.data import NextPiece, SpecialTokens
from afterword.types import Window

BOS = SpecialTokens((0,), 1)
RNG = np.random.default_rng(0)


def window(*sentences, first_new=0):
    """Of sentences of these lengths; its tokens are numbers from 100 on."""
    starts = np.cumsum([0, *sentences])
    ids = np.arange(100, 100 + starts[-1])
    return Window(0, "d", 0, ids, starts[:-1], first_new, True, np.zeros(0, np.int64))


def read(example):
    """Of every piece: what the student reads, and what the teacher does, after BOS."""
    assert example.teacher_ids.tolist() == [0]
    assert all(segment.student_ids[0] == 0 for segment in example.segments)
    return [(segment.student_ids[1:].tolist(), segment.teacher_ids.tolist()) for segment in example.segments]


@pytest.mark.parametrize(
    ("sentences", "borders"),
    [
        ((5, 5, 5, 5), [(0, 10, 20)]),
        ((6, 6, 6), [(0, 6, 12), (6, 12, 18)]),
        ((4, 25, 3), [(0, 4, 14), (4, 14, 24), (14, 24, 32)]),  # A sentence of 25 is cut at ten tokens.
        ((2, 3, 3), [(0, 5, 8)]),  # What would be one piece is cut in two, where a sentence begins nearest 4.
        ((6, 6, 1), [(0, 6, 13)]),
    ],
)
def test_pieces_end_at_sentences(sentences, borders):
    example = NextPiece(piece_tokens=10).build(window(*sentences), BOS, RNG)
    ids = list(range(100, 200))
    assert read(example) == [(ids[start:end], ids[before:end]) for before, start, end in borders]


def test_of_a_later_window_the_overlap_is_the_piece_before():
    example = NextPiece(piece_tokens=10).build(window(8, 8, 8, first_new=2), BOS, RNG)
    assert read(example) == [(list(range(116, 124)), list(range(106, 124)))]


def test_a_document_of_one_sentence_has_nothing_before_it():
    view = NextPiece(piece_tokens=10)
    assert view.skip_reason(window(8)) == "one_sentence"
    assert view.skip_reason(window(9, 1)) == "one_sentence"
    assert view.skip_reason(window(8, 2)) is None


@given(
    sentences=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    size=st.integers(4, 40),
    new=st.integers(0, 3),
    averaging=st.sampled_from(["document", "token"]),
)
def test_tokens_are_trained_once_and_both_sides_predict_the_same(sentences, size, new, averaging):
    view, found = (
        NextPiece(piece_tokens=size, averaging=averaging),
        window(*sentences, first_new=min(new, len(sentences) - 1)),
    )
    if view.skip_reason(found):
        return
    example = view.build(found, BOS, RNG)
    trained = np.concatenate([segment.target_ids for segment in example.segments])
    assert len(np.unique(trained)) == len(trained)
    assert trained.min() > 100 + found.first_new_token
    for segment in example.segments:
        whole = np.append(example.teacher_ids, segment.teacher_ids)
        assert whole[segment.teacher_positions + 1].tolist() == segment.target_ids.tolist()
        assert segment.student_ids[segment.student_positions + 1].tolist() == segment.target_ids.tolist()
        assert len(segment.student_ids) <= 1 + size or len(sentences) == 1 or len(example.segments) == 1
    weight = sum(float(segment.weights.sum()) for segment in example.segments)
    assert weight == pytest.approx(1 if averaging == "document" else len(trained), rel=1e-5)
