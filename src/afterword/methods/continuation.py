"""Context distillation by continuations: what the model says after a document should be as likely without it.

The model continues each document; the teacher reads document and continuation, the student the continuation alone.
Padmanabhan et al. 2023, arXiv:2306.09306, in the form that the paper of DiSC compares with (CD-base,
arXiv:2602.16093): at most 1,000 tokens, τ = 2, KL averaged within chunks of 64 tokens and then over them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.data import Prompted
from afterword.data.views import Writer
from afterword.method_options import ChunkTokens, Continuations, NewTokens
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import Drawing, drawn, with_passages, written_for
from afterword.objectives import Distillation, forward_kl
from afterword.types import Document, Passage, Request


@dataclass(frozen=True, kw_only=True)
class Continued(Drawing, Prompted):
    """Continuations of a document: the student reads one alone, the teacher the document before it."""

    continuations: Continuations = 5
    new_tokens: NewTokens = 1000
    chunk_tokens: ChunkTokens | None = 64

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document with its continuations. They begin a paragraph of their own."""
        given = list(documents)
        texts = [f"{document.text.rstrip()}\n\n" for document in given]
        asking = (
            Request(text=text, sampling=self.sampling(), about=document.id)
            for document, text in zip(given, texts, strict=True)
        )
        groups = [drawn(request, self.continuations) for request in asking]
        for document, text, written in zip(given, texts, written_for(writer, groups, "continuations"), strict=True):
            passages = (Passage(text=each.text, teacher_before=text, ended=each.ended) for each in written)
            yield with_passages(document, passages)


METHOD = Method(
    name="continuation",
    summary="Match, on continuations of a document that the model wrote, the model that has read the document.",
    paper="https://arxiv.org/abs/2306.09306",
    view=Continued(),
    objective=Distillation(forward_kl, temperature=2.0),
    defaults={**AUTHORS_ADAMW, "learning_rate": 4e-6},
    decay_all_parameters=True,
    deviations="Five continuations a document, as the 2023 paper has passages; that of DiSC does not say. "
    "All of them in one step.",
)
