"""Ctrl-C and SIGTERM: every command says that it was interrupted, and ends with the code of the signal."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from afterword.cli import _COMMANDS, app

WORDS = {
    "adapt": ("model", "docs.jsonl", "-o", "run"),
    "align": ("run",),
    "almanac": ("folder",),
    "blend": ("model", "run", "-o", "out"),
    "compare": ("model", "docs.jsonl", "-o", "out"),
    "evaluate": ("run",),
    "export": ("run", "-o", "out"),
    "fetch": ("model",),
    "quiz": ("model", "docs.jsonl", "-o", "quiz.jsonl"),
    "report": ("run",),
    "sample": ("model", "-o", "samples.jsonl"),
    "sequence": ("model", "-o", "out"),
    "study": ("model", "docs.jsonl", "-o", "out"),
}


@pytest.fixture
def handled() -> Iterator[None]:
    """Ctrl-C is heard, also where a shell started the tests in the background; handlers are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("command", _COMMANDS)
def test_a_command_says_that_it_was_interrupted(
    command: str, number: int, code: int, afterword: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (registered,) = [each for each in app.registered_commands if each.name == command]
    assert registered.callback

    @functools.wraps(registered.callback)
    def stopped(**_: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(registered, "callback", stopped)
    said = afterword(command, *WORDS.get(command, ()))
    assert (said.code, said.err) == (code, "Interrupted.\n")
