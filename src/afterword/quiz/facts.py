"""What a quiz is made of: answers in documents, and the questions that they are the answers to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Literal

import numpy as np

from afterword.corpus import split_sentences
from afterword.quiz.spans import Span, drawn_spans
from afterword.types import Document

_NAMES = ("name", "place", "code")
_FEW = 2
_COMMON_SHARE = 0.1
"""A name that more of the documents have is what all of them are about: `Rust`."""
How = Literal["own", "asked", "gap"]
"""The model chose what to ask; it was given the answer; or it is the text itself, with a gap."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A question as it may be put."""

    question: str
    how: How


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, where it stands, and the ways in which it is asked for."""

    document: str
    """Id."""
    excerpt: str
    """What the model reads: the document, or a piece of a longer one."""
    span: Span
    wordings: tuple[Wording, ...] = ()
    choices: tuple[str, ...] = field(default=())
    """Wrong answers of its kind."""

    @property
    def id(self) -> str:
        """What both wordings of it share: document and answer."""
        return f"{self.document}: {self.span.answer}"


def excerpts_of(text: str, words: int, language: str = "en") -> list[str]:
    """A text in pieces of whole sentences, each of at most so many words if no sentence has more.

    >>> excerpts_of("One two. Three four. Five.", 4)
    ['One two. Three four.', 'Five.']
    """
    pieces, taken = list[str](), ""
    for start, end in split_sentences(text, language):
        if taken and len((taken + text[start:end]).split()) > words:
            pieces.append(taken.strip())
            taken = ""
        taken += text[start:end]
    return [*pieces, *([taken.strip()] if taken.strip() else [])]


def facts_of(document: Document, *, tries: int, words: int, seed: int, language: str = "en") -> list[Fact]:
    """At most `tries` answers of a document by their form, from all of its pieces alike.

    Which are drawn depends on the document and the seed alone.
    """
    rng = np.random.default_rng([seed, *document.id.encode()])
    pieces = excerpts_of(document.text, words, language)
    drawn = [[Fact(document.id, piece, span) for span in drawn_spans(piece, tries, rng, language)] for piece in pieces]
    found: dict[str, Fact] = {}
    for fact in chain.from_iterable(zip_longest(*drawn)):
        if fact is not None:
            found.setdefault(fact.span.answer.casefold(), fact)
    return list(found.values())[:tries]


def candidates_of(
    documents: Sequence[Document], *, tries: int, words: int, seed: int, language: str = "en"
) -> list[Fact]:
    """At most `tries` answers of each document, without the names that many of the documents have."""
    given = [facts_of(each, tries=2 * tries, words=words, seed=seed, language=language) for each in documents]
    found = Counter(fact.span.answer.casefold() for facts in given for fact in facts)
    most = max(_FEW, _COMMON_SHARE * len(documents))
    told = [
        [f for f in facts if f.span.kind not in _NAMES or found[f.span.answer.casefold()] <= most] for facts in given
    ]
    return [fact for facts in told for fact in facts[:tries]]


def lead_up(fact: Fact, words: int = 80) -> str:
    """The sentence of a fact behind those before it in its paragraph, on one line, at most so many words if it has not
    more itself.

    >>> lead_up(Fact("a", "Far away.\\n\\nMara bakes. She is 40.", Span("40", "number", "She is 40.")))
    'Mara bakes. She is 40.'
    """
    sentence, paragraph = " ".join(fact.span.sentence.split()), paragraph_of(fact)
    before = paragraph[: paragraph.index(sentence)].split()
    room = max(0, words - len(sentence.split()))
    return " ".join([*_last_sentences(before, room), sentence])


def paragraph_of(fact: Fact) -> str:
    """The paragraph that the sentence of a fact stands in, on one line; else the sentence."""
    sentence = " ".join(fact.span.sentence.split())
    paragraphs = (" ".join(paragraph.split()) for paragraph in fact.excerpt.split("\n\n"))
    return next((each for each in paragraphs if sentence in each), sentence)


def _last_sentences(before: Sequence[str], room: int) -> Sequence[str]:
    """As many of the last words as there is room for, from the beginning of a sentence on."""
    starts = [0, *(i + 1 for i, word in enumerate(before) if word.endswith((".", "!", "?")))]
    return before[next(start for start in starts if len(before) - start <= room or start == starts[-1]) :]
