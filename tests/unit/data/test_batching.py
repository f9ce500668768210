"""However an optimizer step is laid out and cut, it trains the same tokens with the same weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from afterword.data.batching import Packing, build_batch, micro_batches, to_device, without_weight
from afterword.types import Example, Segment

LAYOUTS = ("packed", "padded")


def laid_out(layout):
    """Everything in one view, however much of it is padding."""
    return Packing(100_000, layout, real_share=0.0)


def segment(rng, length, *, at):
    """A student sequence whose tokens are read by the teacher from position `at`; some positions are trained."""
    ids = rng.integers(5, 300, length)
    first = int(rng.integers(0, length - 1))
    positions = np.arange(first, length - 1)
    weights = rng.random(len(positions)).astype(np.float32)
    return Segment(ids, positions, positions + at, ids[positions + 1], weights)


def example(rng, name, lengths, *, teacher=True, source=0):
    starts = np.cumsum([0, *lengths])[:-1]
    segments = tuple(segment(rng, length, at=start) for length, start in zip(lengths, starts, strict=True))
    ids = np.concatenate([s.student_ids for s in segments]) if teacher else None
    return Example(name, source, ids, segments)


def examples(seed=0, *, count=12, teacher=True):
    rng = np.random.default_rng(seed)
    return [
        example(rng, f"doc-{i}", rng.integers(2, 15, size=rng.integers(1, 6)).tolist(), teacher=teacher, source=i % 3)
        for i in range(count)
    ]


def trained_tokens(view):
    """The token after each trained position, read from the row itself."""
    return view.input_ids.flatten()[view.trained + 1].tolist()


def real_tokens(view):
    ids = view.input_ids if view.attention_mask is None else view.input_ids[view.attention_mask.bool()]
    return ids.flatten().tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_views_predict_the_targets_at_their_trained_positions(layout):
    batch = build_batch(examples(), laid_out(layout))
    assert trained_tokens(batch.student) == batch.target_ids.tolist()
    assert trained_tokens(batch.teacher[0]) == batch.target_ids.tolist()
    assert batch.target_ids.tolist() == [t for e in examples() for s in e.segments for t in s.target_ids.tolist()]


def test_both_layouts_hold_the_same_tokens_targets_weights_and_positions():
    packed, padded = (build_batch(examples(), laid_out(layout)) for layout in LAYOUTS)
    for side in ("student", "teacher"):
        one_row, rows = ((b.student if side == "student" else b.teacher[0]) for b in (packed, padded))
        assert real_tokens(one_row) == real_tokens(rows)
        assert one_row.tokens == rows.tokens == len(real_tokens(one_row)) == int(rows.attention_mask.sum())
        assert one_row.position_ids.flatten().tolist() == rows.position_ids[rows.attention_mask.bool()].tolist()
    for name in ("target_ids", "weights", "sources"):
        assert getattr(packed, name).tolist() == getattr(padded, name).tolist()


def test_a_packed_row_restarts_its_positions_and_has_no_mask():
    rng = np.random.default_rng(0)
    batch = build_batch([example(rng, "a", [3, 2]), example(rng, "b", [4])])
    assert batch.student.input_ids.shape == (1, 9)
    assert batch.student.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch.teacher[0].position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert batch.student.attention_mask is None


def test_a_padded_batch_has_a_row_for_every_sequence_with_padding_on_the_right():
    rng = np.random.default_rng(0)
    batch = build_batch([example(rng, "a", [3, 2]), example(rng, "b", [4])], laid_out("padded"))
    assert batch.student.attention_mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.teacher[0].attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert (batch.student.padding, batch.teacher[0].padding) == (3, 1)


@pytest.mark.parametrize("teacher", [True, False])
@pytest.mark.parametrize("budget", [16, 20, 33, 64, 10_000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_micro_batch_keeps_its_budget_or_is_a_single_sequence(layout, budget, teacher):
    for batch in micro_batches(examples(teacher=teacher), Packing(budget, layout)):
        assert batch.student.input_ids.numel() <= budget
        # A view of the teacher is of one example where it is larger; here no example is read in parts.
        whole = [e for e in examples(teacher=teacher) if e.document in batch.documents]
        longest = max((len(e.teacher_ids) for e in whole), default=0) if teacher else 0
        assert all(view.input_ids.numel() <= max(budget, longest) for view in batch.teacher)


@pytest.mark.parametrize("budget", [16, 33, 10_000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cutting_a_step_changes_neither_targets_nor_weights(layout, budget):
    whole = build_batch(examples(), laid_out(layout))
    parts = micro_batches(examples(), Packing(budget, layout))

    def trained(batches):
        return [row for b in batches for row in zip(*(getattr(b, n).tolist() for n in names), strict=True)]

    names = ("target_ids", "weights", "sources")
    found, wanted = trained(parts), trained([whole])
    assert found == wanted if layout == "packed" else sorted(found) == sorted(wanted)
    assert sum(part.total_weight for part in parts) == pytest.approx(whole.total_weight, rel=1e-9)
    assert whole.total_weight == pytest.approx(sum(s.weights.sum() for e in examples() for s in e.segments), rel=1e-6)


def test_micro_batches_are_filled():
    rng = np.random.default_rng(0)
    parts = micro_batches([example(rng, f"{i}", [5]) for i in range(7)], Packing(15))
    assert [part.student.tokens for part in parts] == [15, 15, 5]


def test_padded_examples_share_a_batch_only_with_such_as_are_nearly_as_long():
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 400, 200).tolist()
    batches = micro_batches([example(rng, f"{i}", [n]) for i, n in enumerate(lengths)], Packing(2000, "padded"))
    read = sum(batch.student.input_ids.numel() for batch in batches)
    assert sum(batch.student.tokens for batch in batches) == sum(lengths)
    assert sum(lengths) >= 0.99 * read
    # And yet they are read together: by far fewer batches than there are examples.
    assert len(batches) < 80


def test_padded_segments_that_no_teacher_reads_stand_among_such_as_are_as_long():
    rng = np.random.default_rng(0)
    lengths = [rng.integers(20, 200, 12).tolist() for _ in range(40)]
    taught = [example(rng, f"{i}", each) for i, each in enumerate(lengths)]
    alone = [replace(each, teacher_ids=None) for each in taught]
    read = [
        sum(b.student.input_ids.numel() for b in micro_batches(e, Packing(2000, "padded"))) for e in (taught, alone)
    ]
    real = sum(map(sum, lengths))
    assert real < 0.8 * read[0], "windows of one document are not equally long"
    assert real >= 0.99 * read[1]
    found, wanted = (
        sorted(
            row
            for b in micro_batches(alone, how)
            for row in zip(b.target_ids.tolist(), b.weights.tolist(), strict=True)
        )
        for how in (Packing(2000, "padded"), Packing(2000))
    )
    assert found == wanted


def test_the_teachers_side_is_cut_by_itself():
    rng = np.random.default_rng(0)
    pairs = [example(rng, f"{i}", [5]) for i in range(7)]
    read = [replace(e, teacher_ids=np.concatenate([e.teacher_ids, rng.integers(5, 300, 15)])) for e in pairs]
    (batch,) = micro_batches(read, Packing(45))
    assert batch.student.tokens == 35
    assert [view.tokens for view in batch.teacher] == [40, 40, 40, 20]
    assert [token for view in batch.teacher for token in trained_tokens(view)] == batch.target_ids.tolist()


def test_the_teachers_padding_is_bounded_too():
    rng = np.random.default_rng(0)
    pairs = [example(rng, name, [20]) for name in ("a", "b", "c")]
    read = [replace(e, teacher_ids=np.tile(e.teacher_ids, times)) for e, times in zip(pairs, (1, 2, 1), strict=True)]
    (batch,) = micro_batches(read, Packing(1000, "padded"))
    assert [tuple(view.input_ids.shape) for view in batch.teacher] == [(2, 20), (1, 40)]
    assert [token for view in batch.teacher for token in trained_tokens(view)] == batch.target_ids.tolist()


def test_an_example_may_be_longer_than_a_micro_batch_where_that_is_asked_for():
    whole = example(np.random.default_rng(0), "a", [10, 10, 10, 10])
    other = example(np.random.default_rng(1), "b", [10])
    parts = micro_batches([whole, other], Packing(25, example_tokens=40))
    assert [part.student.tokens for part in parts] == [40, 10]


def test_an_example_too_large_is_split_by_segments_and_each_part_reads_the_teachers_view_again():
    whole = example(np.random.default_rng(0), "a", [10, 10, 10, 10])
    parts = micro_batches([whole], Packing(25))
    assert [part.student.tokens for part in parts] == [20, 20]
    for part in parts:
        assert part.teacher[0].input_ids[0].tolist() == whole.teacher_ids.tolist()
        assert trained_tokens(part.teacher[0]) == part.target_ids.tolist()
        assert part.documents == ("a",)


def test_a_sequence_longer_than_the_budget_stands_alone():
    rng = np.random.default_rng(0)
    lengths = [[5], [40], [5]]
    parts = micro_batches([example(rng, f"{i}", one) for i, one in enumerate(lengths)], Packing(20))
    assert [part.student.tokens for part in parts] == [5, 40, 5]


def test_without_weight_nothing_but_the_weights_changes():
    (whole,) = examples(count=1)
    empty = build_batch([without_weight(whole)])
    assert empty.total_weight == 0
    assert empty.weights.tolist() == [0.0] * len(empty.target_ids)
    same = build_batch([whole])
    assert empty.target_ids.tolist() == same.target_ids.tolist()
    assert empty.student.input_ids.tolist() == same.student.input_ids.tolist()
    assert same.total_weight > 0


def test_every_position_knows_its_source():
    batch = build_batch(examples())
    by_hand = [e.source for e in examples() for s in e.segments for _ in s.target_ids]
    assert batch.sources.tolist() == by_hand
    assert batch.sources.dtype == torch.int64


def test_documents_are_named_once_and_in_order():
    rng = np.random.default_rng(0)
    batch = build_batch([example(rng, name, [3, 4]) for name in ("b", "a", "b")])
    assert batch.documents == ("b", "a")


def test_without_a_teacher_there_is_no_teachers_view():
    assert build_batch(examples(teacher=False)).teacher == ()


def test_examples_with_and_without_a_teacher_do_not_mix():
    with pytest.raises(AssertionError):
        build_batch([*examples(count=1), *examples(count=1, teacher=False)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_moves_whole(layout):
    batch = build_batch(examples(), laid_out(layout))
    moved = to_device(batch, torch.device("meta"))
    tensors = [moved.target_ids, moved.weights, moved.sources]
    for view in (moved.student, *moved.teacher):
        tensors += [view.input_ids, view.position_ids, view.trained]
        tensors += [] if view.attention_mask is None else [view.attention_mask]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.total_weight, moved.documents) == (batch.total_weight, batch.documents)
