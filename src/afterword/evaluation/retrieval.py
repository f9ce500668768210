"""Retrieval: the excerpts of documents that share the most telling words with a question, by BM25.

The one rule: what is found follows from the documents and the question alone, so that every model is asked with the
same text before it.
"""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from afterword.corpus import Corpus
from afterword.data import WindowSettings, read_document
from afterword.errors import DataError
from afterword.evaluation.measure import SEARCHED, Inputs, Models
from afterword.types import Document

_WORD = re.compile(r"\w+")
BM25 = {"method": "lucene", "k1": 1.5, "b": 0.75}
"""The library's defaults: the idf of every word is above 0, so that whatever shares a word has a score."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of a document, of whole sentences where they are not longer than it may be."""

    document: str
    """Id of the document."""
    text: str


@dataclass(frozen=True)
class Index:
    """Excerpts that can be searched."""

    excerpts: Sequence[Excerpt]
    scores: Any
    """A bm25s.BM25 over the words of each excerpt, the title of its document among them."""
    seconds: float
    """What cutting and indexing took."""

    def find(self, question: str, count: int) -> tuple[Excerpt, ...]:
        """The best excerpts, at most so many, the best first; of equals the earlier. None that shares no word."""
        words = search_words(question)
        # The library reads the first word of a question to see whether there are words or numbers.
        scores = self.scores.get_scores(words) if words else np.zeros(len(self.excerpts))
        best = np.argsort(-scores, kind="stable")[:count]
        return tuple(self.excerpts[int(i)] for i in best if scores[i] > 0)


def index_of(models: Models, inputs: Inputs) -> Index:
    """The documents of the run and those of `retrieve_from`, each text once, cut into excerpts and indexed."""
    started = time.perf_counter()
    # A heavy import, and only for this.
    import bm25s

    documents = distinct(inputs.documents[part] for part in SEARCHED if part in inputs.documents)
    cut = [(document, cut_text) for document in documents for cut_text in _cut(models, document, inputs)]
    words = [search_words(f"{document.title or ''} {text}") for document, text in cut]
    if not any(words):
        raise DataError("retrieve: the documents hold no word to search for. Give others.")
    scores = bm25s.BM25(**BM25)
    scores.index(words, show_progress=False)
    excerpts = [Excerpt(document.id, text) for document, text in cut]
    return Index(excerpts, scores, time.perf_counter() - started)


def search_words(text: str) -> list[str]:
    """The runs of letters and digits, in lower case, in their order.

    No word is left out and none is cut to its stem, which would be another list for every language: a word that is
    everywhere has hardly any weight by itself.
    """
    return _WORD.findall(text.casefold())


def distinct(corpora: Iterable[Corpus]) -> list[Document]:
    """The documents of all of these, each text once; of two texts with one id the later gets `#2`, `#3`, …"""
    by_text, taken = dict[str, Document](), dict[str, int]()
    for document in (document for corpus in corpora for document in corpus):
        if document.text not in by_text:
            count = taken[document.id] = taken.get(document.id, 0) + 1
            by_text[document.text] = document if count == 1 else replace(document, id=f"{document.id}#{count}")
    return list(by_text.values())


def _cut(models: Models, document: Document, inputs: Inputs) -> list[str]:
    """A document's text in excerpts, cut as a context of that many tokens would cut it."""
    settings, tokenizer = inputs.settings, models.tokenizer
    room = settings.excerpt_tokens + len(models.special.bos_ids) + 1
    how = WindowSettings(max_length=room, window_overlap=0.0, language=settings.language)
    windows = read_document(document, 0, tokenizer, models.special, how).windows
    texts = (tokenizer.decode(window.token_ids, clean_up_tokenization_spaces=False).strip() for window in windows)
    return [text for text in texts if text]


def before_question(excerpts: Sequence[Excerpt]) -> str:
    """What stands before a question: the excerpts, the best first, with a blank line between."""
    return "\n\n".join(excerpt.text for excerpt in excerpts)
