"""What writes for a method in a test: no model is asked, and what is written follows from the request alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from afterword.types import Request, Written

WORDS = ("Mara", "Lind", "moved", "to", "Bergen", "and", "founded", "a", "small", "bakery", "that", "sells", "bread")


class ScriptedWriter:
    """Texts of a few words; every other one came to no end of its own."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer
        self.asked: list[tuple[str, Request]] = []

    def write(self, requests: Any, what: str) -> list[Written]:
        """A question where questions are asked, else an answer."""
        self.asked += [(what, request) for request in requests]
        return [_written(request, what) for request in requests]


def _written(request: Request, what: str) -> Written:
    content = repr((request.turns, request.text, request.other_turns, request.seed, what))
    digest = hashlib.sha256(content.encode()).digest()
    text = " ".join(WORDS[byte % len(WORDS)] for byte in digest[: 4 + digest[0] % 5])
    return Written(f"Who is {text}?" if what == "questions" else f"{text}.", ended=bool(digest[1] % 2))


@contextmanager
def open_scripted(load: Any, tokenizer: Any, *_: Any, **__: Any) -> Iterator[ScriptedWriter]:
    """In the place of `open_writer`."""
    yield ScriptedWriter(load(), tokenizer)
