"""Examples → micro-batches of bounded size, without padding.

How an optimizer step is cut here changes no gradient: weights travel with their positions, and the sum of
weights over the whole step divides once, in the trainer.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from afterword.types import Batch, Example, InputRows, Segment, SharedRows

T = TypeVar("T")
Moved = TypeVar("Moved", bound=Batch | InputRows | SharedRows)
_KEPT = 4
"""Micro-batches of tokens whose keys and values a teacher may have in memory at a time."""
View = InputRows | SharedRows
ReadText = tuple[np.ndarray, np.ndarray]
"""Ids [t], and the positions [n] of them that are asked for."""
Layout = str
"""`packed`: all sequences in one row, positions restart. `padded`: a row each, with an attention mask."""


@dataclass(frozen=True)
class Packing:
    """How examples are laid out."""

    micro_batch_tokens: int
    """Bound on what the student reads in a micro-batch, and a teacher at a time. A longer example stands alone."""
    layout: Layout = "packed"
    example_tokens: int | None = None
    """Bound on what the student reads of one example at once; `micro_batch_tokens` where it is not given."""
    alone_beyond: int | None = None
    """A longer text shares no batch: beside it, shorter ones would be read otherwise than alone (`alone_beyond`)."""
    shares_beginnings: bool = False
    """Whether what a teacher reads alike of several segments is read once; the model must continue it cleanly."""
    real_share: float = 0.99
    """Padded examples share a batch only where so much of it are tokens. What pads within one that a teacher reads
    is not cut."""


def micro_batches(examples: Iterable[Example], packing: Packing) -> list[Batch]:
    """Cut examples into batches of one term and of what fits on the student's side; the teacher's is cut by itself.

    Packed ones keep their order. Padded ones are taken by length, and share a batch only with such as are nearly as
    long: at least 99 % of what a model reads are tokens. There an example is taken apart by segments where no teacher
    reads it now. One too large for a batch is split by segments; each part reads the teacher's view again.
    """
    padded, most = packing.layout == "padded", packing.example_tokens or packing.micro_batch_tokens

    def together(segments: Sequence[Segment]) -> bool:
        """Whether segments of an example may be one piece of it."""
        lengths = list(map(_student_tokens, segments))
        return _size(lengths, padded) <= most and not _apart(lengths, packing)

    def parts(example: Example) -> Iterator[Example]:
        """The example, or pieces of it that fit."""
        if padded and example.teacher_ids is None:
            # No view is read again for them, so each segment may stand among such as are as long.
            yield from (replace(example, segments=(segment,)) for segment in example.segments)
            return
        for segments in _grouped(example.segments, together):
            yield replace(example, segments=tuple(segments))

    def fit(group: list[Example]) -> bool:
        """Whether examples may be one batch."""
        return _fits([_student_tokens(segment) for each in group for segment in each.segments], packing)

    # A batch is of one term; the sort keeps the order of examples within each, and within a length.
    pieces = [part for example in examples for part in parts(example)]
    pieces.sort(key=lambda piece: (piece.term, *(_longest(piece) if padded else ())))
    groups = [g for _, of in itertools.groupby(pieces, key=lambda piece: piece.term) for g in _grouped(of, fit)]
    return [build_batch(group, packing) for group in groups]


def build_batch(examples: Sequence[Example], packing: Packing = Packing(sys.maxsize)) -> Batch:
    """One micro-batch of examples of one term, which all have a teacher view, or all have none."""
    segments = [segment for example in examples for segment in example.segments]
    weights = np.concatenate([segment.weights for segment in segments])
    sources = [np.full(len(s.target_ids), e.source, np.int64) for e in examples for s in e.segments]
    assert len({example.term for example in examples}) == 1, "terms are kept apart"
    return Batch(
        student=_view([s.student_ids for s in segments], [s.student_positions for s in segments], packing.layout),
        teacher=teacher_views(examples, packing),
        target_ids=_tensor(np.concatenate([segment.target_ids for segment in segments])),
        weights=_tensor(weights),
        sources=_tensor(np.concatenate(sources)),
        sequences=_tensor(np.repeat(np.arange(len(segments)), [len(s.target_ids) for s in segments])),
        term=examples[0].term,
        total_weight=float(weights.sum(dtype=np.float64)),
        documents=tuple(dict.fromkeys(example.document for example in examples)),
        teacher_rows=_teacher_rows(segments),
    )


def reading_groups(lengths: Sequence[int], packing: Packing) -> list[list[int]]:
    """Texts of these lengths, by number, in groups that are read together; the longest first, to pad little."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return list(_grouped(order, lambda group: _fits([lengths[i] for i in group], packing)))


def views_of(texts: Sequence[ReadText], packing: Packing, shared: int = 0) -> list[tuple[list[int], View]]:
    """Texts as they are read: in each view those of about one length, by number, in the order of its positions.

    `shared`: so many tokens all of them begin with alike. They are read once a view, where it has several texts, and no
    position is before the last of them.
    """
    found = list[tuple[list[int], View]]()
    for numbers in reading_groups([len(ids) for ids, _ in texts], packing):
        some = [texts[number] for number in numbers]
        both = ([ids for ids, _ in some], [positions for _, positions in some])
        found.append((numbers, _from_one(*both, shared) if shared and len(some) > 1 else _view(*both, packing.layout)))
    return found


def _from_one(rows: Sequence[np.ndarray], positions: Sequence[np.ndarray], shared: int) -> SharedRows:
    """Rows that begin alike; nothing that is asked for is before the last token of the beginning."""
    inside = [own - shared + 1 for own in positions]
    return _shared_rows([rows[0][:shared]], [0] * len(rows), [row[shared:] for row in rows], inside, len(rows))


def without_weight(example: Example) -> Example:
    """The same example with all weights 0: keeps a process in step with the others, and trains nothing."""
    return replace(example, segments=tuple(replace(s, weights=np.zeros_like(s.weights)) for s in example.segments))


def to_device(item: Moved, device: torch.device) -> Moved:
    """The batch, or the view, with all its tensors on a device."""

    def moved(value: Any) -> Any:
        """A tensor, a view or views on the device; anything else as it is."""
        if isinstance(value, InputRows | SharedRows):
            return to_device(value, device)
        if isinstance(value, tuple):
            return tuple(map(moved, cast("tuple[Any, ...]", value)))
        return value.to(device) if isinstance(value, Tensor) else value

    return replace(item, **{each.name: moved(getattr(item, each.name)) for each in fields(item)})


def teacher_views(examples: Sequence[Example], packing: Packing) -> tuple[InputRows | SharedRows, ...]:
    """What a teacher reads for examples: their trained positions, one view after the other, are the examples'."""
    read = [example for example in examples if example.teacher_ids is not None]
    assert len(read) in (0, len(examples)), "all examples of a batch have a teacher view, or none has"
    views: list[InputRows | SharedRows] = []
    for shares, of_them in itertools.groupby(read, lambda each: packing.shares_beginnings and _is_worth_sharing(each)):
        some = list(of_them)
        if shares:
            views += [_shared(group, packing) for group in _grouped(some, lambda group: _fits_shared(group, packing))]
            continue
        texts = [text for example in some for text in teacher_texts(example)]
        groups = _grouped(texts, lambda group: _fits([len(ids) for ids, _ in group], packing))
        views += [_view([ids for ids, _ in g], [positions for _, positions in g], packing.layout) for g in groups]
    return tuple(views)


def teacher_texts(example: Example) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids [t] and trained positions of every text that a teacher reads for an example, each whole.

    One for all segments; or one for each, where a segment has something of its own.
    """
    shared = example.teacher_ids
    assert shared is not None, "it has a teacher"
    if all(s.teacher_ids is None for s in example.segments):
        return [(shared, np.concatenate([s.teacher_positions for s in example.segments]))]
    return [(np.append(shared, s.alone), s.teacher_positions) for s in example.segments]


def _is_worth_sharing(example: Example) -> bool:
    """Whether reading the beginning once, and what follows in padded rows, is a quarter less than reading all whole."""
    assert example.teacher_ids is not None, "it has a teacher"
    beginning, alone = len(example.teacher_ids), [len(segment.alone) for segment in example.segments]
    shared = beginning + _size(alone, padded=True)
    return beginning > 0 and min(alone) > 0 and 4 * shared <= 3 * (beginning * len(alone) + sum(alone))


def _fits_shared(examples: Sequence[Example], packing: Packing) -> bool:
    """Whether the beginnings of examples may be read together, and what follows them: little of it is padding."""
    beginnings, alone = _shared_lengths(examples)
    size = _size(beginnings, padded=True) + _size(alone, padded=True)
    return size <= packing.micro_batch_tokens and 4 * (sum(beginnings) + sum(alone)) >= 3 * size


def _shared_lengths(examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    beginnings = [0 if e.teacher_ids is None else len(e.teacher_ids) for e in examples]
    return beginnings, [len(segment.alone) for example in examples for segment in example.segments]


def _shared(examples: Sequence[Example], packing: Packing) -> SharedRows:
    """Beginnings and rows of examples that are worth it."""
    begins = [example.teacher_ids for example in examples if example.teacher_ids is not None]
    rows = [segment.alone for example in examples for segment in example.segments]
    follows = [number for number, example in enumerate(examples) for _ in example.segments]
    inside = [s.teacher_positions - len(b) + 1 for b, e in zip(begins, examples, strict=True) for s in e.segments]
    at_once = max(1, _KEPT * packing.micro_batch_tokens // (max(map(len, begins)) + max(map(len, rows))))
    return _shared_rows(begins, follows, rows, inside, at_once)


def _shared_rows(
    begins: Sequence[np.ndarray],
    follows: Sequence[int],
    rows: Sequence[np.ndarray],
    inside: Sequence[np.ndarray],
    rows_at_once: int,
) -> SharedRows:
    """`inside`: the positions of each row, counted from the last token of its beginning on, which stands before it."""
    lengths, alone = list(map(len, begins)), list(map(len, rows))
    longest, width = max(lengths), max(alone)
    assert min(int(positions.min(initial=0)) for positions in inside) >= 0, "nothing is trained within a beginning"
    left: list[np.ndarray] = [np.pad(each, (longest - len(each), 0)) for each in begins]
    return SharedRows(
        beginning_ids=_tensor(np.stack(left)),
        beginning_mask=_tensor(np.stack([np.arange(longest) >= longest - n for n in lengths])).long(),
        follows=_tensor(np.array(follows)),
        input_ids=_padded(rows, width),
        attention_mask=_tensor(np.stack([np.arange(width) < n for n in alone])).long(),
        trained=_tensor(np.concatenate([positions + i * (1 + width) for i, positions in enumerate(inside)])),
        tokens=sum(lengths) + sum(alone),
        rows_at_once=rows_at_once,
    )


def _teacher_rows(segments: Sequence[Segment]) -> Tensor | None:
    rows = [segment.teacher_rows for segment in segments if segment.teacher_rows is not None]
    assert len(rows) in (0, len(segments)), "all segments of a batch come with the teacher's rows, or none does"
    return torch.cat(rows) if rows else None


def _view(rows: Sequence[np.ndarray], positions: Sequence[np.ndarray], layout: Layout) -> InputRows:
    lengths = np.array([len(row) for row in rows])
    position_ids: list[np.ndarray] = [np.arange(length) for length in lengths]
    if layout == "packed":
        offsets = np.concatenate([[0], lengths.cumsum()[:-1]])
        ids, restarts, mask = _row(rows), _row(position_ids), None
    else:
        # Padding stands on the right of causal models, where no real position can read it.
        width = int(lengths.max())
        offsets = np.arange(len(rows)) * width
        ids, restarts = _padded(rows, width), _padded(position_ids, width)
        real: list[np.ndarray] = [np.ones(length, np.int64) for length in lengths]
        mask = _padded(real, width)
    trained = np.concatenate([p + o for p, o in zip(positions, offsets, strict=True)])
    return InputRows(ids, restarts, mask, _tensor(trained), tokens=int(lengths.sum()))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]  # torch leaves its argument untyped


def _row(rows: Sequence[np.ndarray]) -> Tensor:
    return _tensor(np.concatenate(rows)).unsqueeze(0)


def _padded(rows: Sequence[np.ndarray], width: int) -> Tensor:
    return _tensor(np.stack([np.pad(row, (0, width - len(row))) for row in rows]))


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


def _fits(lengths: Sequence[int], packing: Packing) -> bool:
    """Whether sequences may be one batch: within the budget, and of padded ones hardly any padding."""
    size = _size(lengths, padded=packing.layout == "padded")
    return (
        not _apart(lengths, packing)
        and size <= packing.micro_batch_tokens
        and sum(lengths) >= packing.real_share * size
    )


def _apart(lengths: Sequence[int], packing: Packing) -> bool:
    """Whether one of several texts is so long that it must be read alone."""
    return bool(packing.alone_beyond) and len(lengths) > 1 and max(lengths) > (packing.alone_beyond or 0)


def _size(lengths: Iterable[int], padded: bool) -> int:
    lengths = list(lengths)
    return max(lengths, default=0) * len(lengths) if padded else sum(lengths)


def _longest(example: Example) -> tuple[int, int]:
    return max(map(_student_tokens, example.segments)), _teacher_tokens(example)


def _student_tokens(segment: Segment) -> int:
    return len(segment.student_ids)


def _teacher_tokens(example: Example) -> int:
    return 0 if example.teacher_ids is None else sum(len(ids) for ids, _ in teacher_texts(example))
