"""Recital: the document is the model's own reply to a person who asks for it, and is learned as that.

A post-trained model answers in a register of its own, the turns of its chat template. What it learns of bare text it
has to carry over by itself. Here a document stands where an answer stands. The request before it is read and not
trained. Ours.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.data import Prompted
from afterword.data.views import Writer
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import asked, conversation, with_passages
from afterword.objectives import Prediction
from afterword.types import Document, Passage

_REQUESTS = ("recite_1", "recite_2", "recite_3")
_SUBJECT_WORDS = 16
"""A first line that is a paragraph is no title."""


@dataclass(frozen=True, kw_only=True)
class Recited(Prompted):
    """A document as the model's reply, behind one of three requests for what it knows about the document's title."""

    @property
    def takes_parts(self) -> bool:
        """A reply has to fit the context with the request before it."""
        return True

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document behind the request that its id draws. Nothing is written by the model."""
        for document in documents:
            drawn = hashlib.sha256(document.id.encode()).digest()[0] % len(_REQUESTS)
            request = conversation(writer, asked(_REQUESTS[drawn], of=subject_of(document)))
            yield with_passages(document, [Passage(document.text, request, ended=True)])


def subject_of(document: Document) -> str:
    """The title, or else the first words of the first line; and the section.

    >>> subject_of(Document(id="a", text="Minutes of the board, 3 May.\\nPresent: all."))
    'Minutes of the board, 3 May'
    """
    first = document.text.strip().partition("\n")[0].split()
    title = (document.title or " ".join(first[:_SUBJECT_WORDS])).strip().rstrip(".")
    return f"{title}, {document.section}" if document.section else title


METHOD = Method(
    name="recite",
    summary="Predict the document as the model's own reply to a person who asks for it.",
    paper="",
    view=Recited(),
    objective=Prediction(),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="Ours, in no paper. Without a chat template the request is a line before the document.",
)
