"""What a teacher reads of a window, as a text that is read once; and what a cache says of it."""

from dataclasses import replace

import numpy as np

from afterword.data import SpecialTokens, SplitContext, View, WholeDocument
from afterword.data.batching import teacher_texts
from afterword.errors import ConfigError
from afterword.models.teacher_cache import TeacherCache, text_key
from afterword.types import Example, Window

_OF_WINDOWS = (WholeDocument.build, SplitContext.build)


def begins_windows(view: View) -> bool:
    """Whether a teacher reads the beginning of a window, whatever is drawn. Of other views it is known by building."""
    return type(view).build in _OF_WINDOWS


def window_text(window: Window, special: SpecialTokens) -> np.ndarray:
    """[n] int64: BOS and the window's tokens, the one text of which all views of a window read a beginning."""
    return np.concatenate([special.bos_ids, window.token_ids]).astype(np.int64)


def read_texts(example: Example, window: Window, special: SpecialTokens) -> list[np.ndarray]:
    """[n] int64 each: the texts that are read for an example, for all segments or for each.

    One for all is the window's, if that begins alike. A teacher is causal: what comes after the last position that is
    asked about does not count.
    """
    texts = [ids for ids, _ in teacher_texts(example)]
    if len(texts) > 1 or any(s.teacher_ids is not None for s in example.segments):
        return texts
    asked = 1 + max((int(s.teacher_positions.max(initial=-1)) for s in example.segments), default=-1)
    whole = window_text(window, special)
    return [whole if np.array_equal(texts[0][:asked], whole[:asked]) else texts[0]]


def from_cache(example: Example, window: Window, special: SpecialTokens, cache: TeacherCache) -> Example:
    """The example with what the teacher says at its positions, instead of something for the teacher to read."""
    keys = [text_key(text) for text in read_texts(example, window, special)]
    if any(key not in cache for key in keys):
        problem = f"teacher: 'cached' reads every text before the first step, and for {example.document} the view"
        why = "gives the teacher a text that was not among them: its draws follow from more than the window and rng"
        raise ConfigError(f"{problem} {why}. Use copy, or offload.")
    pairs = zip(example.segments, keys if len(keys) > 1 else keys * len(example.segments), strict=True)
    segments = (replace(s, teacher_rows=cache.rows(key, s.teacher_positions)) for s, key in pairs)
    return replace(example, teacher_ids=None, segments=tuple(segments))
