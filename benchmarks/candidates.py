"""Methods that were tried for the recipe and are not in the package: `--method candidates:NAME` finds them here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.corpus.sentences import split_sentences
from afterword.data import Prompted, SplitContext
from afterword.data.views import Writer
from afterword.methods import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import conversation, with_passages
from afterword.objectives import Prediction
from afterword.types import Document, Passage

_REQUESTS = ("Tell me about {}.", "What do you know about {}?", "Write down what you know about {}.")


@dataclass(frozen=True, kw_only=True)
class InChat(Prompted):
    """A document as the model's reply to a person who asks for it; another request in every pass."""

    passages: int | None = 1

    @property
    def takes_parts(self) -> bool:
        return True

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document behind each request."""
        for document in documents:
            asked = [request.format(document.title or "what is new") for request in _REQUESTS]
            before = [conversation(writer, (("user", request),)) for request in asked]
            yield with_passages(document, [Passage(document.text, student_before=text, ended=True) for text in before])


_ONE = "Tell me one thing about {}."


@dataclass(frozen=True, kw_only=True)
class InChatAndParts(InChat):
    """The same, and each sentence alone as a reply: what stands before it in the document does not lead to it."""

    passages: int | None = None

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document behind one request, and its sentences behind another."""
        for document in documents:
            title = document.title or "what is new"
            whole, one = (conversation(writer, (("user", text.format(title)),)) for text in (_REQUESTS[0], _ONE))
            parts = [document.text[a:b].strip() for a, b in split_sentences(document.text)]
            alone = [Passage(part, student_before=one, ended=True) for part in parts if part]
            yield with_passages(document, [Passage(document.text, student_before=whole, ended=True), *alone])


_ADAMW = {**AUTHORS_ADAMW, "learning_rate": 1e-5}
IN_CHAT = Method(
    name="in_chat",
    summary="Predict the document as the model's reply to a person who asks for it.",
    paper="",
    view=InChat(),
    objective=Prediction(),
    defaults=_ADAMW,
    decay_all_parameters=True,
)
IN_CHAT_AND_PARTS = Method(
    name="in_chat_and_parts",
    summary="Predict the document, and each of its sentences, as the model's reply.",
    paper="",
    view=InChatAndParts(),
    objective=Prediction(),
    defaults=_ADAMW,
    decay_all_parameters=True,
)
SENTENCES = Method(
    name="sentences",
    summary="Predict every sentence of the document alone.",
    paper="",
    view=SplitContext(strategy="all"),
    objective=Prediction(),
    defaults=_ADAMW,
    decay_all_parameters=True,
)
