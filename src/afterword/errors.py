"""What a user can cause, and how it is said: setting, value, rule, remedy.

Our own bugs are `assert`s. Everything here reaches a person as one message without a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AfterwordError(Exception):
    """Base of every error that the person at the keyboard can do something about."""


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


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean …? ` for a name that is close to a known one, or nothing.

    >>> nearest("finetun", ["disc", "finetune"])
    'Did you mean finetune? '
    """
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}? " if near else ""
