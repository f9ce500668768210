"""A writer that needs no model: what it writes follows from the request alone, and it counts what it is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from afterword.types import Document, Request, Written

WORDS = [
    "harbour",
    "lantern",
    "bridge",
    "winter",
    "council",
    "letter",
    "engine",
    "garden",
    "witness",
    "signal",
    "copper",
    "island",
    "teacher",
    "market",
]


class WordTokenizer:
    """A token for every word."""

    model_max_length = 8192

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}


@dataclass
class FakeWriter:
    """Writes what `reply` makes of a request, and remembers the requests."""

    reply: Callable[[Request], str]
    asked: list[Request] = field(default_factory=list)
    rounds: int = 0
    tokenizer: Any = field(default_factory=WordTokenizer)
    generator: Any = field(default_factory=lambda: SimpleNamespace(name="fake"))

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        self.rounds += 1
        self.asked += requests
        return [Written(self.reply(request), True) for request in requests]


def random_text(request: Request, words: int = 40) -> str:
    """Other words for another request: what is asked and the seed decide."""
    rng = random.Random(f"{request.turns} {request.seed}")
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(words)) + "."


@pytest.fixture
def documents() -> list[Document]:
    """Three of different lengths, two of which name the same person; the last one has a title."""
    harbour = "Mara Lind opened the harbour of Bergen on 3 May 2025. " + "The harbour has room for ships. " * 8
    bakery = "Mara Lind sold her bakery in Oslo to Per Holm. " + "Per Holm bakes bread there now. " * 4
    return [
        Document("harbour", harbour.strip(), source="a.txt"),
        Document("bakery", bakery.strip(), source="a.txt"),
        Document("signal", "The signal of Farsund was lit by Ida Berg in 1901. " * 3, title="The Signal"),
    ]


@pytest.fixture
def writing() -> Callable[..., FakeWriter]:
    """A writer with a reply of one's own; without one, another random text for every request."""
    return lambda reply=random_text: FakeWriter(reply)
