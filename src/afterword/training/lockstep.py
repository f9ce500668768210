"""Sharded models: every forward and backward is one of all processes, so all must have as many, of the same kinds."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from afterword.distributed import gathered, is_sharded
from afterword.types import Batch, InputRows


def in_lockstep(batches: Iterable[Batch], model: Any) -> list[Batch]:
    """The batches; of a sharded model by term, with idle ones behind those of a term of which another process has more.

    All processes call it together; then at every place all have a batch of the same term.
    """
    batches = list(batches)
    if not is_sharded(model):
        return batches
    mine = {term: [batch for batch in batches if batch.term == term] for term in {batch.term for batch in batches}}
    # An idle batch comes from a process that has one of the term: it may be that this one has none to take it from.
    everyone = gathered([{term: (len(own), idle(own[0])) for term, own in mine.items()}])
    even: list[Batch] = []
    for term in sorted({term for theirs in everyone for term in theirs}):
        known = [theirs[term] for theirs in everyone if term in theirs]
        own = mine.get(term, [])
        even += [*own, *[known[0][1]] * (max(count for count, _ in known) - len(own))]
    return _as_many_views(even)


def _as_many_views(batches: list[Batch]) -> list[Batch]:
    """The batches, with idle views for the teacher behind their own where another process has more at that place."""
    mine = [len(batch.teacher) for batch in batches]
    counts = gathered(mine)
    most = [max(counts[place :: len(mine)]) for place in range(len(mine))]
    return [
        replace(batch, teacher=(*batch.teacher, *map(_first_token, batch.teacher[:1] * (views - len(batch.teacher)))))
        for batch, views in zip(batches, most, strict=True)
    ]


def idle(batch: Batch) -> Batch:
    """A batch of the same kind that trains no position and counts no token: of each view one token is read."""
    rows = batch.teacher_rows
    nothing = {name: getattr(batch, name)[:0].clone() for name in ("target_ids", "weights", "sources", "sequences")}
    return replace(
        batch,
        student=_first_token(batch.student),
        teacher=tuple(map(_first_token, batch.teacher[:1])),
        teacher_rows=None if rows is None else rows[:0].clone(),
        total_weight=0.0,
        documents=(),
        **nothing,
    )


def _first_token(view: InputRows) -> InputRows:
    mask = None if view.attention_mask is None else view.attention_mask[:1, :1].clone()
    ids, positions = view.input_ids[:1, :1].clone(), view.position_ids[:1, :1].clone()
    return InputRows(ids, positions, mask, trained=view.trained[:0].clone(), tokens=0)
