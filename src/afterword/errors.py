"""What a user can cause, and how it is said: setting, value, rule, remedy.

Our own bugs are `assert`s. Everything here reaches a person as one message without a traceback.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of writing, and halves of characters."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_WRITE_FAILED = ("no space left", "file write failed", "unexpected pos", "file too large", "disk quota", "os error 28")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


class AfterwordError(Exception):
    """Base of every error that the person at the keyboard can do something about."""

    def __str__(self) -> str:
        # Names of files and words of documents are quoted in it.
        return printable(super().__str__())


class ConfigError(AfterwordError, ValueError):
    """Settings that cannot be run. Carries every problem found, not only the first."""

    def __init__(self, problems: str | Iterable[str]):
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(f"  - {problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        # The message is made from the problems, so the problems are what must survive a pickle.
        return type(self), (self.problems,)


class DataError(AfterwordError, ValueError):
    """Documents or questions that cannot be read, with the file and the line."""


class CheckpointError(AfterwordError, ValueError):
    """A model, tokenizer, checkpoint or run folder that cannot be used."""


class TrainingError(AfterwordError, RuntimeError):
    """A run that had to stop: a non-finite loss, a full disk, no memory. What was saved is intact."""


class Diverged(TrainingError):  # noqa: N818  the name says what happened
    """A loss or gradient that is not finite."""


def printable(text: str, kept: str = "\n\t") -> str:
    r"""The text as it may be shown: control characters, and bytes of names that are not UTF-8, as escapes.

    A name must not clear a terminal, set its title or turn the direction of what follows it.

    >>> print(printable("\x1b[2J caf\udce9.txt"))
    \x1b[2J caf\xe9.txt
    """
    shown = (c if c in kept or not _UNSHOWN.match(c) else _escape(ord(c)) for c in text)
    return "".join(shown) if _UNSHOWN.search(text) else text


def _escape(code: int) -> str:
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"


def number_of(count: int, noun: str) -> str:
    """A count with its noun, as a sentence says it.

    >>> number_of(1, "document"), number_of(2500, "document")
    ('1 document', '2,500 documents')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean …? ` for a name that is close to a known one, or nothing.

    >>> nearest("finetun", ["disc", "finetune"])
    'Did you mean finetune? '
    """
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}? " if near else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether a file did not fit, whichever library met it."""
    text = str(error).lower()
    return getattr(error, "errno", None) in _FULL or any(words in text for words in _WRITE_FAILED)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, whichever library met it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)
