"""Sentences as character spans that tile the text: every character belongs to exactly one."""

import re
from collections.abc import Iterator
from itertools import pairwise

from afterword.errors import ConfigError

_BLANK_LINES = re.compile(r"\n\s*\n\s*")
_INITIAL_AND_SPACE = re.compile(r"[A-Z]\s+(?=\.)")
_PIECE_CHARACTERS = 12_000
"""Of ASCII. The splitter takes time with the square of a longer text, and more where a character has more bytes."""
_MARGIN = 300
"""Characters at the end of a piece in which no sentence is believed to begin."""


def split_sentences(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Character spans [start, end) of the sentences: they tile the text, and none is only whitespace.

    Whitespace after a sentence belongs to it, whitespace at the start of the text to the first sentence.
    A text without anything but whitespace has no sentences. `language` is a two-letter ISO 639-1 code or
    a three-letter ISO 639-3 code, with or without a region (`pt-BR`, which is split as `pt`); the splitter
    has general rules for the codes it does not know.
    """
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ConfigError(f"language: must be an ISO 639 code such as de or pt-BR (or use en), got {language!r}.")
    # Half a surrogate pair cannot be handed to the splitter; one character stands in for one.
    readable = text.encode("utf-8", "replace").decode()
    pieces = ((end, readable[start:end].lstrip()) for start, end in _pieces(readable, code))
    starts = sorted({end - len(piece) for end, piece in pieces if piece})
    return list(pairwise([0, *starts[1:], len(text)])) if starts else []


def _pieces(text: str, code: str) -> Iterator[tuple[int, int]]:
    """Spans of the paragraphs, which blank lines end, and of the sentences in them, not trimmed."""
    cuts = (gap.end() for gap in _BLANK_LINES.finditer(text))
    for first, last in pairwise([0, *cuts, len(text)]):
        yield first, last
        # Paragraph by paragraph, because the splitter works in pieces of about 10,000 characters and
        # loses the blank lines between them.
        starts = [first, *(first + start for start in _starts(text[first:last], code))]
        yield from pairwise([*starts, last])


def _starts(paragraph: str, code: str) -> Iterator[int]:
    """Where sentences begin in a paragraph, its own beginning aside; in time proportional to its length.

    A long one is read in pieces, each from the last beginning that is known on, so that what is decided at a place
    follows from the same words as in the whole.
    """
    share = len(paragraph) / max(1, len(paragraph.encode()))
    size = max(_MARGIN * 2, int(_PIECE_CHARACTERS * share * share))
    begin = 0
    while len(paragraph) - begin > size:
        # What stands near the end of a piece is decided with the next one, which has what follows.
        known = [begin + at for at in _boundaries(paragraph[begin : begin + size], code) if at < size - _MARGIN]
        yield from known
        begin = known[-1] if known else begin + size - _MARGIN
    yield from (begin + at for at in _boundaries(paragraph[begin:], code))


def _boundaries(text: str, code: str) -> list[int]:
    """Where the splitter has sentences begin; nowhere, where it breaks down."""
    # A compiled module, whose names a type checker cannot see.
    from sentencex import get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]

    # It cuts inside a character where a wide space stands between an initial and its full stop.
    text = _INITIAL_AND_SPACE.sub(lambda found: found[0][0] + " " * (len(found[0]) - 1), text)
    try:
        return [bound["start_index"] for bound in get_sentence_boundaries(code, text) if bound["start_index"] > 0]
    except BaseException as error:
        # What a panic of the compiled module is raised as; no Exception, and of a class that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        return []
