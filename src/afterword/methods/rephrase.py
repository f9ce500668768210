"""Rephrasing: the model rewrites each document, and is fine-tuned on what it wrote.

The baseline that the paper of DiSC compares with (arXiv:2602.16093); constants from the authors' code: two prompts
after a system turn, one sample each at temperature 1 and top-p 0.95, at most 10,000 tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from afterword.data import WholeDocument
from afterword.data.views import Writer
from afterword.method_options import NewTokens, Originals, Rephrasings, TopP
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import Drawing, about, asked, drawn, written_for
from afterword.objectives import Prediction
from afterword.types import Document, Request

_PROMPTS = ("rephrase_1", "rephrase_2")
_STEP = 256


@dataclass(frozen=True, kw_only=True)
class Rephrased(Drawing, WholeDocument):
    """The model's own rewritings of a document, each read whole."""

    rephrasings: Rephrasings = 1
    originals: Originals = False
    new_tokens: NewTokens = 10_000
    top_p: TopP = 0.95

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """A document for every rewriting; the title of the original stays with it."""
        given = list(documents)
        groups = [list(self._requests(writer, document)) for document in given]
        for document, texts in zip(given, written_for(writer, groups, "rephrasings"), strict=True):
            if self.originals:
                yield document
            # What came to no end goes round in circles.
            whole = [written for written in texts if written.ended] or texts
            for number, written in enumerate(whole, start=1):
                yield replace(document, id=f"{document.id}/rephrased-{number}", text=written.text)

    def _requests(self, writer: Writer, document: Document) -> Iterator[Request]:
        tokenizer: Any = writer.tokenizer
        length = len(tokenizer(document.text, add_special_tokens=False, verbose=False).input_ids)
        # A rewriting twice as long as its document repeats itself. In steps, so that many are written together.
        tokens = min(self.new_tokens, _STEP * (1 + 2 * length // _STEP))
        for name in _PROMPTS:
            turns, said = asked(name, document=document.text), about(document, name)
            request = Request(turns=turns, sampling=self.sampling(tokens), about=said)
            yield from drawn(request, self.rephrasings)


METHOD = Method(
    name="rephrase",
    summary="Predict every token of the model's own rewritings of the documents.",
    paper="https://arxiv.org/abs/2602.16093",
    view=Rephrased(averaging="document"),
    objective=Prediction(),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="The words of the authors' two prompts and of their system turn are not known: ours. "
    "A rewriting ends at about twice the document's length, and one that was cut there is left out where another of "
    "the document is whole.",
)
