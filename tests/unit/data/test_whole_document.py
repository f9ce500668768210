"""The whole document: every new token trained once, EOS only where the document ends."""

import random

import numpy as np
import pytest

from afterword.data import SpecialTokens, WholeDocument, WindowSettings, read_document
from afterword.types import Document, Window

BOS, NONE, EOS = SpecialTokens((0,), 1), SpecialTokens((), 1), 1


def window(tokens, *, new=0, end=True):
    starts = np.array([0, new] if new else [0])
    return Window(0, "d", 0, np.arange(100, 100 + tokens), starts, int(new > 0), end, np.zeros(0, np.int64))


def build(read, special, view=None):
    return (view or WholeDocument()).build(read, special, np.random.default_rng(0))


def test_a_document_is_read_with_bos_and_eos_and_all_of_it_is_trained():
    (segment,) = build(window(3), BOS).segments
    assert segment.student_ids.tolist() == [0, 100, 101, 102, EOS]
    assert segment.student_positions.tolist() == [0, 1, 2, 3]
    assert segment.target_ids.tolist() == [100, 101, 102, EOS]


def test_without_bos_the_first_token_has_nothing_to_be_predicted_from():
    (segment,) = build(window(3), NONE).segments
    assert segment.student_ids.tolist() == [100, 101, 102, EOS]
    assert segment.target_ids.tolist() == [101, 102, EOS]


def test_eos_stands_only_at_the_end_of_the_document():
    (segment,) = build(window(3, end=False), BOS).segments
    assert segment.student_ids.tolist() == [0, 100, 101, 102]
    assert segment.target_ids.tolist() == [100, 101, 102]


@pytest.mark.parametrize("special", [BOS, NONE])
def test_the_overlap_is_read_and_not_trained(special):
    (segment,) = build(window(5, new=2), special).segments
    assert segment.student_ids.tolist() == [*special.bos_ids, 100, 101, 102, 103, 104, EOS]
    assert segment.target_ids.tolist() == [102, 103, 104, EOS]
    assert segment.student_ids[segment.student_positions + 1].tolist() == [102, 103, 104, EOS]


@pytest.mark.parametrize(("averaging", "total"), [("document", 1.0), ("token", 4.0)])
def test_weights_sum_to_one_a_document_or_one_a_token(averaging, total):
    (segment,) = build(window(3), BOS, WholeDocument(averaging=averaging)).segments
    assert segment.weights.sum() == pytest.approx(total)
    assert len(set(segment.weights.tolist())) == 1


def test_a_document_of_one_token_predicts_its_end():
    (segment,) = build(window(1), NONE).segments
    assert segment.target_ids.tolist() == [EOS]


def test_only_an_empty_window_is_skipped():
    assert WholeDocument().skip_reason(window(0)) == "too_short"
    assert WholeDocument().skip_reason(window(1)) is None


def test_a_teacher_would_read_the_same():
    example = build(window(3), BOS)
    (segment,) = example.segments
    assert example.teacher_ids.tolist() == segment.student_ids.tolist()
    assert segment.teacher_positions.tolist() == segment.student_positions.tolist()


@pytest.mark.parametrize("special", [BOS, NONE])
@pytest.mark.parametrize("overlap", [0.25, 0.75])
def test_every_token_is_trained_exactly_once_over_the_windows_of_a_document(tokenizer, special, overlap):
    draw = random.Random(overlap)
    for _ in range(60):
        words = draw.choices(["Mara", "ran.", "She", "sold", "bread.", "北京.", "Coffee"], k=draw.randint(1, 150))
        text, reading = " ".join(words), WindowSettings(max_length=draw.randint(16, 80), window_overlap=overlap)
        windows = read_document(Document("d", text), 0, tokenizer, special, reading).windows
        segments = [build(read, special).segments[0] for read in windows]
        trained = [token for segment in segments for token in segment.target_ids.tolist()]
        whole = tokenizer(text, add_special_tokens=False).input_ids
        assert trained == [*(whole if special.bos_ids else whole[1:]), EOS]
        assert all(len(segment.student_ids) <= reading.max_length for segment in segments)
