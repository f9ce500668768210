"""Passages of a document as the text that travels with it."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from afterword.types import Passage


def passages_to_json(passages: Iterable[Passage]) -> str:
    """For `Document.passages`."""
    return json.dumps([asdict(each) for each in passages], ensure_ascii=False)


def passages_from_json(text: str) -> tuple[Passage, ...]:
    """What `passages_to_json` wrote."""
    return tuple(Passage(**row) for row in json.loads(text))
