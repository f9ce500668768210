"""Control tokens that a text writes out: a page about chat formats must not end a turn, nor begin one.

A tokenizer makes the real token of what a document only mentions. Documents are tokenised so that it stays text; what
is put into a chat template, which writes real ones around it, is written so that none is in it.
"""

import re
from functools import lru_cache
from typing import Any, Literal

ControlTokens = Literal["text", "refuse", "keep"]
"""What to do with those in a document: read them as the text that they are, stop the run, or let them work."""
_BETWEEN = "\N{ZERO WIDTH SPACE}"


@lru_cache(maxsize=64)
def _pattern_of(written: tuple[str, ...]) -> re.Pattern[str] | None:
    # The longest first, where one begins like another.
    return re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True)))) if written else None


def pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """What finds the tokenizer's control tokens in a text; None where it has none. White space is never one."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return _pattern_of(tuple(sorted(token for token in special if token.strip())))


def written(tokenizer: Any, text: str) -> list[str]:
    """The control tokens that a text writes, one by one."""
    found = pattern(tokenizer)
    return found.findall(text) if found else []


def as_words(tokenizer: Any, text: str) -> str:
    """The text for a chat template, which is tokenised whole: a zero-width space keeps each from being a token.

    A text that writes none stays as it is.
    """
    found = pattern(tokenizer)
    return found.sub(lambda token: token[0][0] + _BETWEEN + token[0][1:], text) if found else text
