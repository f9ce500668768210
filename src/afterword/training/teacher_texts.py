"""What a teacher reads of a window, as texts that are read once; and what a cache says of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from afterword.data import SpecialTokens, SplitContext, View, WholeDocument
from afterword.data.batching import teacher_texts
from afterword.errors import ConfigError
from afterword.models.teacher_cache import TeacherCache, text_key
from afterword.types import Example, Segment, Window

_OF_WINDOWS = (WholeDocument.build, SplitContext.build)


@dataclass(frozen=True, eq=False)
class ReadText:
    """A text that a teacher reads, and from which position on what it says is kept."""

    ids: np.ndarray  # [n] int64
    first: int = 0
    """Several texts that begin alike have no rows for that, but for its last token."""

    @property
    def key(self) -> str:
        """The name that a cache has it by."""
        return text_key(self.ids) + (f"+{self.first}" if self.first else "")

    @property
    def positions(self) -> np.ndarray:
        """[rows] int64, what is kept."""
        return np.arange(self.first, len(self.ids))


def begins_windows(view: View) -> bool:
    """Whether a teacher reads the beginning of a window, whatever is drawn. Of other views it is known by building."""
    return type(view).build in _OF_WINDOWS


def window_text(window: Window, special: SpecialTokens) -> ReadText:
    """BOS and the window's tokens, the one text of which all views of a window read a beginning."""
    return ReadText(np.concatenate([special.bos_ids, window.token_ids]).astype(np.int64))


def read_texts(example: Example, window: Window, special: SpecialTokens) -> list[ReadText]:
    """The texts that are read for an example: one for all segments, or one for each.

    One for all is the window's, if that begins alike. A teacher is causal: what comes after the last position that is
    asked about does not count.
    """
    ids = example.teacher_ids
    assert ids is not None, "a view that gives the teacher nothing to read is of no use to it"
    if _is_apart(example):
        return [ReadText(text, max(0, len(ids) - 1)) for text, _ in teacher_texts(example)]
    asked = 1 + max((int(s.teacher_positions.max(initial=-1)) for s in example.segments), default=-1)
    whole = window_text(window, special)
    return [whole if np.array_equal(ids[:asked], whole.ids[:asked]) else ReadText(ids)]


def asked_whole(example: Example, texts: Sequence[ReadText], parts: Sequence[int]) -> Example:
    """Some of the texts of an example with every position that is kept, in their order."""
    if _is_apart(example):
        segments = (replace(example.segments[i], teacher_positions=texts[i].positions) for i in parts)
        return replace(example, segments=tuple(segments))
    nothing = np.zeros(0, np.int64)
    asked = (Segment(nothing, nothing, texts[i].positions, nothing, nothing) for i in parts)
    return replace(example, teacher_ids=texts[0].ids, segments=tuple(asked))


def from_cache(example: Example, window: Window, special: SpecialTokens, cache: TeacherCache) -> Example:
    """The example with what the teacher says at its positions, instead of something for the teacher to read."""
    texts = read_texts(example, window, special)
    if any(text.key not in cache for text in texts):
        problem = f"teacher: 'cached' reads every text before the first step, and for {example.document} the view"
        why = "gives the teacher a text that was not among them: its draws follow from more than the window and rng"
        raise ConfigError(f"{problem} {why}. Use copy, or offload.")
    of_segments = texts if _is_apart(example) else texts * len(example.segments)
    pairs = zip(example.segments, of_segments, strict=True)
    segments = (replace(s, teacher_rows=cache.rows(t.key, s.teacher_positions - t.first)) for s, t in pairs)
    return replace(example, teacher_ids=None, segments=tuple(segments))


def _is_apart(example: Example) -> bool:
    """Whether segments have something of their own that the teacher reads."""
    return any(segment.teacher_ids is not None for segment in example.segments)
