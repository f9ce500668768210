"""What is to be written about documents, and what was: the nouns of this folder."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from afterword.method_options import KINDS, StudyKind
from afterword.types import Document, Sampling

TOKENS_PER_TOKEN = 4.0
NEW_TOKENS, TEMPERATURE, TOP_P = 1024, 0.7, 0.95
PART_TOKENS = 800
"""A longer document is studied in parts of at most so many tokens: a small model loses the thread in longer ones."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """How much of which kinds is written, and how it is drawn."""

    amounts: Mapping[StudyKind, float]
    """By kind, tokens that are written for a token of a document; in the order in which they are written."""
    sampling: Sampling
    """`max_new_tokens` bounds a text; it has less where the document is short."""
    seed: int = 0
    part_tokens: int = PART_TOKENS
    language: str = "en"
    """By which sentences are found."""
    grounded: bool = True
    """Whether texts are dropped whose numbers and names do not stand in what they were written from."""

    @staticmethod
    def equal_parts(kinds: Collection[StudyKind], tokens_per_token: float) -> dict[StudyKind, float]:
        """The amounts of some kinds that come to so much in all."""
        return {kind: tokens_per_token / len(kinds) for kind in KINDS if kind in kinds}


@dataclass(frozen=True, slots=True)
class Part:
    """A document, or a piece of a long one, as it is shown to the model that writes."""

    document: Document
    text: str
    tokens: int
    """Of the model that is taught, without the title."""

    @property
    def shown(self) -> str:
        """Title, where there is one, and text."""
        return titled(self.document, self.text)


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that was written about a document, as it is trained."""

    part: Part
    """What it was written from; of a text about two, the first."""
    kind: StudyKind
    number: int
    """Among those of its document and kind, from 1."""
    prompt: str
    """Name and version: `study/summary_short@1`."""
    text: str
    tokens: int

    @property
    def document(self) -> Document:
        """The document that it was written from."""
        return self.part.document

    @property
    def id(self) -> str:
        """`report.txt/summary/2`."""
        return f"{self.document.id}/{self.kind}/{self.number}"


@dataclass(slots=True)
class KindCounts:
    """What became of the requests of one kind."""

    requests: int = 0
    pieces: int = 0
    tokens: int = 0
    shortened: int = 0
    """Pieces that a loop or an unfinished sentence was cut off from."""
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    """Texts that were not kept, by reason."""

    def drop(self, reason: str) -> None:
        """Count a text that is not kept."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def to_json(self, document_tokens: int) -> dict[str, Any]:
        """As study.json has it."""
        counts = {"requests": self.requests, "pieces": self.pieces, "tokens": self.tokens}
        per_token = round(self.tokens / document_tokens, 4)
        return {**counts, "tokens_per_token": per_token, "shortened": self.shortened, "dropped": self.dropped}


@dataclass(frozen=True, kw_only=True)
class StudyText:
    """All that was written about some documents."""

    pieces: tuple[Piece, ...]
    """Document by document, in their order, and kind by kind."""
    counts: Mapping[StudyKind, KindCounts]
    documents: int
    document_tokens: int


def titled(document: Document, text: str) -> str:
    """A text under the title of its document, so that it names what it is about; as it is where it has that already."""
    title = (document.title or "").strip()
    return f"{title}\n\n{text}" if title and title.casefold() not in text.casefold() else text
