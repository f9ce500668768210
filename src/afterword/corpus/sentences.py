"""Sentences as character spans that tile the text: every character belongs to exactly one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from afterword.errors import ConfigError

# ISO 639-1. The splitter takes any string, and quietly uses its general rules where it does not know it.
_LANGUAGES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv "
    "dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie "
    "ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv "
    "mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm "
    "rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts "
    "tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


def split_sentences(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Character spans [start, end) of the sentences: they tile the text, and none is only whitespace.

    Whitespace after a sentence belongs to it, whitespace at the start of the text to the first sentence.
    A text without anything but whitespace has no sentences. `language` is a two-letter ISO 639-1 code or
    a three-letter ISO 639-3 code, with or without a region (`pt-BR`, which is split as `pt`).
    """
    code = _language_code(language)
    if not text.strip():
        return []
    starts = list(_sentence_starts(text, code))
    spans = list(zip(starts, [*starts[1:], len(text)], strict=True))
    assert "".join(text[a:b] for a, b in spans) == text
    return spans


def _sentence_starts(text: str, code: str) -> Iterator[int]:
    """Where sentences start: 0, then increasing; there is something to read in each."""
    # A compiled module, whose names a type checker cannot see.
    from sentencex import get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]

    # Half a surrogate pair cannot be handed to the splitter; one character stands in for one.
    readable = text.encode("utf-8", "replace").decode()
    for first, last in _paragraphs(readable):
        # Paragraph by paragraph, because the splitter works in pieces of about 10,000 characters and
        # loses the blank lines between them.
        bounds = get_sentence_boundaries(code, readable[first:last])
        pieces = ((first + bound["start_index"], first + bound["end_index"]) for bound in bounds)
        starts = (end - len(readable[start:end].lstrip()) for start, end in pieces if readable[start:end].strip())
        next(starts, None)
        yield first
        yield from starts


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Spans separated by blank lines, which end the paragraph before them."""
    start = 0
    for gap in _BLANK_LINES.finditer(text):
        if gap.end() < len(text) and text[start : gap.start()].strip():
            yield start, gap.end()
            start = gap.end()
    yield start, len(text)


@lru_cache(maxsize=64)
def _language_code(language: str) -> str:
    code = language.strip().lower().replace("_", "-").partition("-")[0]
    if code in _LANGUAGES.split() or re.fullmatch("[a-z]{3}", code):
        return code
    raise ConfigError(
        f"language: must be an ISO 639 code such as en, de, zh or pt-BR, got {language!r}. "
        "Where the language has no code of two or three letters, use en."
    )
