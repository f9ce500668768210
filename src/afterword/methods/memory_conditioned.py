"""Memory-conditioned training: the model first reads what it knows itself, then learns what the document adds.

Before a document stands the page that the model wrote on its subject without having read it; only the document is
trained. arXiv:2504.12523.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.data import Prompted
from afterword.data.views import Writer
from afterword.method_options import SamplingTemperature, TopP
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.written import Drawing, about, asked, with_passages, written_for
from afterword.objectives import Prediction
from afterword.types import Document, Passage, Request, Sampling

_SUBJECT = Sampling(max_new_tokens=16, temperature=0.0)


@dataclass(frozen=True, kw_only=True)
class Remembered(Drawing, Prompted):
    """A document after the model's own page on its subject."""

    sampling_temperature: SamplingTemperature = 0.7
    top_p: TopP = 0.9

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document with a page before it. Its subject is its title, or what the model says that it is about."""
        given = list(documents)
        untitled = [document for document in given if not document.title]
        asking = [[self._request(document, "subject", document.text, _SUBJECT)] for document in untitled]
        named = iter(written_for(writer, asking, "subjects"))
        subjects = [document.title or "".join(text.text for text in next(named)) for document in given]
        pairs = zip(given, subjects, strict=True)
        requests = [[self._request(document, "page", subject, self.sampling())] for document, subject in pairs]
        pages = written_for(writer, requests, "pages")
        for document, written in zip(given, pages, strict=True):
            page = "".join(f"{text.text}\n\n" for text in written)
            yield with_passages(document, [Passage(document.text, student_before=page, ended=True)])

    def _request(self, document: Document, name: str, of: str, sampling: Sampling) -> Request:
        return Request(turns=asked(name, of=of), sampling=sampling, about=about(document, name))


METHOD = Method(
    name="memory_conditioned",
    summary="Predict the document after the model's own page on its subject, which is read and not trained.",
    paper="https://arxiv.org/abs/2504.12523",
    view=Remembered(),
    objective=Prediction(),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="The prompts and the sampling are ours; the subject is the document's title, or what the model says "
    "that it is about.",
)
