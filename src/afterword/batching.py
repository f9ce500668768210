"""Examples → micro-batches of bounded size, without padding.

How an optimizer step is cut here changes no gradient: weights travel with their positions, and the sum of
weights over the whole step divides once, in the trainer.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from afterword.types import Batch, Example, Segment, View

T = TypeVar("T")
Moved = TypeVar("Moved", Batch, View)
Layout = str
"""`packed`: all sequences in one row, positions restart. `padded`: a row each, with an attention mask."""


@dataclass(frozen=True)
class Packing:
    """How examples are laid out."""

    micro_batch_tokens: int
    """Bound on the tokens of either view in a micro-batch. A single longer sequence stands alone."""
    layout: Layout = "packed"


def micro_batches(examples: Iterable[Example], packing: Packing) -> list[Batch]:
    """Cut examples, in their order, into batches of one term and at most `micro_batch_tokens` a side.

    An example too large for one batch is split by segments; each part reads the teacher's view again.
    """
    budget, layout = packing.micro_batch_tokens, packing.layout

    def parts(example: Example) -> Iterator[Example]:
        for segments in _grouped(example.segments, lambda group: _size(map(_student_tokens, group), layout) <= budget):
            yield replace(example, segments=tuple(segments))

    # A batch is of one term; the sort keeps the order of examples within each.
    pieces = [part for example in sorted(examples, key=lambda e: e.term) for part in parts(example)]
    terms = itertools.groupby(pieces, key=lambda piece: piece.term)
    groups = [g for _, of in terms for g in _grouped(of, lambda group: max(_sizes(group, layout)) <= budget)]
    return [build_batch(group, layout) for group in groups]


def build_batch(examples: Sequence[Example], layout: Layout = "packed") -> Batch:
    """One micro-batch of examples of one term, which all have a teacher view, or all have none."""
    segments = [segment for example in examples for segment in example.segments]
    weights = np.concatenate([segment.weights for segment in segments])
    sources = [np.full(len(s.target_ids), e.source, np.int64) for e in examples for s in e.segments]
    assert len({example.term for example in examples}) == 1, "terms are kept apart"
    return Batch(
        student=_view([s.student_ids for s in segments], [s.student_positions for s in segments], layout),
        teacher=_teacher_view(examples, layout),
        target_ids=torch.from_numpy(np.concatenate([segment.target_ids for segment in segments])),
        weights=torch.from_numpy(weights),
        sources=torch.from_numpy(np.concatenate(sources)),
        sequences=torch.from_numpy(np.repeat(np.arange(len(segments)), [len(s.target_ids) for s in segments])),
        term=examples[0].term,
        total_weight=float(weights.sum(dtype=np.float64)),
        documents=tuple(dict.fromkeys(example.document for example in examples)),
        teacher_rows=_teacher_rows(segments),
    )


def reading_groups(lengths: Sequence[int], packing: Packing) -> list[list[int]]:
    """Texts of these lengths, by number, in groups that are read together; the longest first, to pad little."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    budget, layout = packing.micro_batch_tokens, packing.layout
    return list(_grouped(order, lambda group: _size([lengths[i] for i in group], layout) <= budget))


def reading_view(rows: Sequence[np.ndarray], layout: Layout = "packed") -> View:
    """Texts to be read only: every position of every one counts as trained, in their order."""
    return _view(rows, [np.arange(len(row)) for row in rows], layout)


def without_weight(example: Example) -> Example:
    """The same example with all weights 0: keeps a process in step with the others, and trains nothing."""
    return replace(example, segments=tuple(replace(s, weights=np.zeros_like(s.weights)) for s in example.segments))


def to_device(item: Moved, device: torch.device) -> Moved:
    """The batch, or the view, with all its tensors on a device."""

    def moved(value: Any) -> Any:
        """A tensor or a view on the device; anything else as it is."""
        if isinstance(value, View):
            return to_device(value, device)
        return value.to(device) if isinstance(value, Tensor) else value

    return replace(item, **{each.name: moved(getattr(item, each.name)) for each in fields(item)})


def _teacher_view(examples: Sequence[Example], layout: Layout) -> View | None:
    ids = [example.teacher_ids for example in examples if example.teacher_ids is not None]
    assert len(ids) in (0, len(examples)), "all examples of a batch have a teacher view, or none has"
    if not ids:
        return None
    positions = [np.concatenate([s.teacher_positions for s in e.segments]) for e in examples]
    return _view(ids, positions, layout)


def _teacher_rows(segments: Sequence[Segment]) -> Tensor | None:
    rows = [segment.teacher_rows for segment in segments if segment.teacher_rows is not None]
    assert len(rows) in (0, len(segments)), "all segments of a batch come with the teacher's rows, or none does"
    return torch.cat(rows) if rows else None


def _view(rows: Sequence[np.ndarray], positions: Sequence[np.ndarray], layout: Layout) -> View:
    lengths = np.array([len(row) for row in rows])
    position_ids = [np.arange(length) for length in lengths]
    if layout == "packed":
        offsets = np.concatenate([[0], lengths.cumsum()[:-1]])
        ids, restarts, mask = _row(rows), _row(position_ids), None
    else:
        # Padding stands on the right of causal models, where no real position can read it.
        width = int(lengths.max())
        offsets = np.arange(len(rows)) * width
        ids, restarts = _padded(rows, width), _padded(position_ids, width)
        mask = _padded([np.ones(length, np.int64) for length in lengths], width)
    trained = np.concatenate([p + o for p, o in zip(positions, offsets, strict=True)])
    return View(ids, restarts, mask, torch.from_numpy(trained), tokens=int(lengths.sum()))


def _row(rows: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(rows)).unsqueeze(0)


def _padded(rows: Sequence[np.ndarray], width: int) -> Tensor:
    return torch.from_numpy(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))


def _grouped(items: Iterable[T], fits: Callable[[list[T]], bool]) -> Iterator[list[T]]:
    """Runs of items, in their order, each as long as it fits; what does not fit alone stands alone."""
    group: list[T] = []
    for item in items:
        if group and not fits([*group, item]):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _sizes(examples: Sequence[Example], layout: Layout) -> tuple[int, int]:
    student = [_student_tokens(segment) for example in examples for segment in example.segments]
    teacher = [len(example.teacher_ids) for example in examples if example.teacher_ids is not None]
    return _size(student, layout), _size(teacher, layout)


def _size(lengths: Iterable[int], layout: Layout) -> int:
    lengths = list(lengths)
    return sum(lengths) if layout == "packed" else max(lengths, default=0) * len(lengths)


def _student_tokens(segment: Segment) -> int:
    return len(segment.student_ids)
