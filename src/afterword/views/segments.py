"""Aligned segments: from a target's token span to student and teacher positions and weights.

The shift from a position to the token that it predicts happens in this file and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from afterword.types import Segment

Averaging = Literal["document", "token"]
Span = tuple[int, int]


def aligned_segments(
    token_ids: np.ndarray,
    spans: Sequence[Span],
    *,
    student_prefix: np.ndarray,
    teacher_prefix: int,
    averaging: Averaging,
) -> tuple[Segment, ...]:
    """One segment a span: the student reads prefix + span, the teacher prefix + everything up to the span's end.

    A span's first token is never trained: alone, the student has nothing to predict it from (METHODS §1.3).
    """
    lengths = [end - start - 1 for start, end in spans]
    return tuple(
        _segment(token_ids, span, student_prefix, teacher_prefix, weight)
        for span, weight in zip(spans, position_weights(lengths, averaging), strict=True)
    )


def position_weights(lengths: Sequence[int], averaging: Averaging) -> list[float]:
    """The weight of each position of each target, given the targets' numbers of trained positions.

    `document`: a mean over positions of a mean over targets, so a document weighs 1 in all. `token`: every
    position weighs 1.

    >>> position_weights([2, 4], "document")
    [0.25, 0.125]
    >>> position_weights([2, 4], "token")
    [1.0, 1.0]
    """
    if averaging == "token":
        return [1.0] * len(lengths)
    return [1.0 / (len(lengths) * length) for length in lengths]


def _segment(
    token_ids: np.ndarray, span: Span, student_prefix: np.ndarray, teacher_prefix: int, weight: float
) -> Segment:
    start, end = span
    trained = end - start - 1
    return Segment(
        student_ids=np.concatenate([student_prefix, token_ids[start:end]]),
        student_positions=np.arange(trained) + len(student_prefix),
        teacher_positions=np.arange(trained) + teacher_prefix + start,
        target_ids=token_ids[start + 1 : end],
        weights=np.full(trained, weight, np.float32),
    )
