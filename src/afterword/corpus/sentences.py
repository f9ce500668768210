"""Sentences as character spans that tile the text: every character belongs to exactly one."""

import re
from collections.abc import Iterator
from itertools import pairwise

from afterword.errors import ConfigError

_BLANK_LINES = re.compile(r"\n\s*\n\s*")


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
    # A compiled module, whose names a type checker cannot see.
    from sentencex import get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]

    cuts = (gap.end() for gap in _BLANK_LINES.finditer(text))
    for first, last in pairwise([0, *cuts, len(text)]):
        yield first, last
        # Paragraph by paragraph, because the splitter works in pieces of about 10,000 characters and
        # loses the blank lines between them.
        for bound in get_sentence_boundaries(code, text[first:last]):
            yield first + bound["start_index"], first + bound["end_index"]
