"""Document → windows: tokenised once, cut into sentences, and into pieces that fit the context.

Nothing of a document is dropped here. What is read in several windows, and what had to be cut inside a
sentence, is counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afterword.corpus import split_sentences
from afterword.data import control_tokens
from afterword.data.control_tokens import ControlTokens
from afterword.errors import CheckpointError, ConfigError, DataError
from afterword.method_options import Bos, Join
from afterword.types import Document, Window

MAX_ANCHOR_TOKENS = 32
"""A first line that is a paragraph is no title: the anchor is cut here, and counted. Our choice."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What stands around a document's own tokens."""

    bos_ids: tuple[int, ...]
    eos_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How documents are read. Everything here changes the windows, so all of it is part of a run's identity."""

    max_length: int
    """Context in tokens, BOS and EOS included."""
    window_overlap: float = 0.25
    """Share of the context that a later window repeats as context only. METHODS §1 leaves it open: ours."""
    join: Join = "document"
    """`document`: tokenised once and cut by character offsets. `authors`: each sentence tokenised alone."""
    anchored: bool = False
    """Whether the title (or first line) is kept for every window, for views that begin with it."""
    language: str = "en"
    control_tokens: ControlTokens = "text"
    """What becomes of control tokens of the model that a document writes out."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """The windows of one document, and what had to be cut."""

    windows: tuple[Window, ...]
    cut_sentences: int
    cut_anchor: bool
    control_tokens: int = 0
    """Control tokens of the model that its text writes out."""
    left_out: tuple[str, ...] = ()
    """Which passages are longer than the context."""


def special_tokens(tokenizer: Any, bos: Bos, join: Join) -> SpecialTokens:
    """BOS as the tokenizer adds it by itself (`auto`), always, or never; `auto` is never under `authors`.

    The authors of DiSC add none; models with an attention sink need theirs.
    """
    if bos == "always" and tokenizer.bos_token_id is None:
        raise ConfigError("bos: 'always' needs a tokenizer with a BOS token; this one has none. Use 'auto'.")
    plain, full = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    own = full[: next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)]
    before = {"always": [tokenizer.bos_token_id], "never": [], "auto": own if join == "document" else []}[bos]
    return SpecialTokens(tuple(before), tokenizer.eos_token_id)


def read_document(
    document: Document, source: int, tokenizer: Any, special: SpecialTokens, window_settings: WindowSettings
) -> ReadDocument:
    """Tokenise, cut at sentences, and window one document. `Window.index` is set when it is stored."""
    text, anchor_characters = _anchored_text(document) if window_settings.anchored else (document.text, 0)
    _refuse_slow(tokenizer, window_settings)
    how, control = _how(text, tokenizer, window_settings, document)
    token_ids, starts, anchor_ids = _tokenise(text, anchor_characters, tokenizer, window_settings, how)
    # Never past the first sentence: what follows can be a target, and the student would have read it.
    limit = min(MAX_ANCHOR_TOKENS, len(token_ids), *starts[1:2].tolist())
    anchor_ids, cut_anchor = anchor_ids[:limit], len(anchor_ids) > limit
    # Room for BOS, EOS and the anchor on the longer of the two views.
    capacity = window_settings.max_length - len(special.bos_ids) - 1 - len(anchor_ids)
    if capacity < 8:
        problem = f"{window_settings.max_length} tokens leave {capacity} for text after BOS, EOS and title"
        raise ConfigError(f"max_length: {problem}; at least 8 are needed. Raise max_length.")
    overlap = int(capacity * window_settings.window_overlap)
    starts, cut = _fitting(starts, len(token_ids), capacity, overlap)
    whole = Window(-1, document.id, source, token_ids, starts, 0, True, anchor_ids)
    return ReadDocument(tuple(_windows(whole, capacity, overlap)), cut, cut_anchor, control)


def document_ids(
    text: str, tokenizer: Any, window_settings: WindowSettings, document: Document
) -> tuple[np.ndarray, int]:
    """Token ids [n] of a text of a document, without BOS or EOS; and how many control tokens it writes out."""
    how, control = _how(text, tokenizer, window_settings, document)
    return _ids(tokenizer, text, how), control


def _how(text: str, tokenizer: Any, window_settings: WindowSettings, document: Document) -> tuple[dict[str, Any], int]:
    """What the tokenizer is told of a text, and how many control tokens it writes out. DataError where none may be."""
    control = control_tokens.written(tokenizer, text)
    if control and window_settings.control_tokens == "refuse":
        problem = f"document {document.id} of {document.source} writes {control[0]!r}, a control token of the model"
        raise DataError(f"{problem}. Leave it out, or set control_tokens: text, which reads it as what it looks like.")
    # Said to the tokenizer only where it matters: what has none is read as ever.
    split = bool(control) and window_settings.control_tokens == "text"
    return {"split_special_tokens": True} if split else {}, len(control)


def _refuse_slow(tokenizer: Any, window_settings: WindowSettings) -> None:
    if window_settings.join == "document" and not tokenizer.is_fast:
        raise CheckpointError("tokenizer: sentences are cut by a fast tokenizer only. Convert it, or use join=authors.")


def _anchored_text(document: Document) -> tuple[str, int]:
    """The text with its title in front where it is not there yet, and how many characters the title takes."""
    text, title = document.text.lstrip(), (document.title or "").strip()
    if title and document.section:
        title = f"{title} — {document.section.strip()}"
    if title and not text.startswith(title):
        text = f"{title}\n\n{text}"
    line = title or text.partition("\n")[0]
    return text, len(text) - len(text[len(line) :].lstrip("\n"))


def _tokenise(
    text: str, anchor_characters: int, tokenizer: Any, window_settings: WindowSettings, how: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """Token ids [n], sentence starts [m] as token offsets, anchor ids [a]. `how` is for the tokenizer."""
    spans = split_sentences(text, window_settings.language)
    if window_settings.join == "authors":
        pieces = [_ids(tokenizer, text[start:end].strip(), how) for start, end in spans]
        starts = np.cumsum([0, *(len(piece) for piece in pieces if len(piece))])[:-1]
        return np.concatenate([*pieces, starts[:0]]), starts, _ids(tokenizer, text[:anchor_characters], how)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False, **how)
    ids = np.array(encoded.input_ids, np.int64)
    # A token belongs to the sentence that its last character is in: " He" is of the sentence of "He".
    ends = np.maximum.accumulate(np.array([end for _, end in encoded.offset_mapping], np.int64))
    starts = np.searchsorted(ends, [start for start, _ in spans], side="right")
    starts = np.unique(starts[starts < len(ids)])
    anchor = int(np.searchsorted(ends, anchor_characters, side="right")) if anchor_characters else 0
    return ids, starts, ids[:anchor]


def _ids(tokenizer: Any, text: str, how: dict[str, Any]) -> np.ndarray:
    return np.array(tokenizer(text, add_special_tokens=False, verbose=False, **how).input_ids, np.int64)


def _fitting(starts: np.ndarray, length: int, capacity: int, overlap: int) -> tuple[np.ndarray, int]:
    """Sentence starts with every sentence short enough to follow its overlap, and how many were cut."""
    if length <= capacity:  # Only a document that does not fit the context is touched.
        return starts, 0
    limit = capacity - max(1, overlap)
    ends = np.append(starts[1:], length)
    borders = zip(starts.tolist(), ends.tolist(), strict=True)
    pieces: list[np.ndarray] = [np.arange(start, end, limit) for start, end in borders]
    return np.concatenate(pieces), int((ends - starts > limit).sum())


def _windows(whole: Window, capacity: int, overlap: int) -> Iterator[Window]:
    """The document in pieces of at most `capacity` tokens, every later one after an overlap of context."""
    ids, starts, first = whole.token_ids, whole.sentence_starts, 0
    ends = np.append(starts[1:], len(ids))
    while first < len(starts):
        # The overlap begins at a sentence if a whole one fits the room, else inside the one before.
        earliest = max(0, int(starts[first]) - min(overlap, capacity - int(ends[first] - starts[first])))
        boundary = int(starts[np.searchsorted(starts, earliest)])
        low = boundary if boundary < starts[first] else earliest
        last = int(np.searchsorted(ends, low + capacity, side="right"))
        end = int(ends[last - 1])
        cuts = np.union1d([low], starts[np.searchsorted(starts, low) : last])
        window = replace(whole, token_ids=ids[low:end], sentence_starts=cuts - low, is_document_end=end == len(ids))
        yield replace(window, first_new_sentence=len(cuts) - (last - first))
        first = last
