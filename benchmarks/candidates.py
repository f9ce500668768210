"""Methods that were tried for the recipe and are not in the package: `--method candidates:NAME` finds them here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.corpus.sentences import split_sentences
from afterword.data import SplitContext
from afterword.data.views import Writer
from afterword.methods import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.recite import Recited, subject_of
from afterword.methods.written import conversation, with_passages
from afterword.objectives import Prediction
from afterword.types import Document, Passage

_WHOLE = "Tell me about {}."
_ONE = "Tell me one thing about {}."


@dataclass(frozen=True, kw_only=True)
class RecitedWithParts(Recited):
    """The same, and each sentence alone as a reply: what stands before it in the document does not lead to it."""

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document behind one request, and its sentences behind another."""
        for document in documents:
            subject = subject_of(document)
            whole, one = (conversation(writer, (("user", text.format(subject)),)) for text in (_WHOLE, _ONE))
            parts = [document.text[a:b].strip() for a, b in split_sentences(document.text)]
            alone = [Passage(part, student_before=one, ended=True) for part in parts if part]
            yield with_passages(document, [Passage(document.text, student_before=whole, ended=True), *alone])


_ADAMW = {**AUTHORS_ADAMW, "learning_rate": 1e-5}
RECITE_WITH_PARTS = Method(
    name="recite_with_parts",
    summary="Predict the document, and each of its sentences, as the model's reply.",
    paper="",
    view=RecitedWithParts(),
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
