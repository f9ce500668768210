"""The model asks itself about a document: questions, which several methods answer in ways of their own."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterword.data import Prompted
from afterword.data.views import Writer
from afterword.method_options import Answers, OwnQuestions, SamplingTemperature, TopP
from afterword.methods.written import Drawing, Turns, about, asked, conversation, drawn, with_passages, written_for
from afterword.types import Document, Passage, Request, Sampling

_ASKING = Sampling(max_new_tokens=64, temperature=0.7, top_p=0.9)
"""Ours. At temperature 1 a small model asks nonsense."""


@dataclass(frozen=True, kw_only=True)
class AsksItself(Drawing, Prompted):
    """Answers to the model's own questions. The student reads the question before an answer, the teacher both texts."""

    sampling_temperature: SamplingTemperature = 0.7
    top_p: TopP = 0.9
    own_questions: OwnQuestions = 5
    answers: Answers = 1

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document with answers to questions about it; what the teacher reads of them begins with its text."""
        given = list(documents)
        questions = self._questions(writer, given)
        pairs = [(document, question) for document, own in zip(given, questions, strict=True) for question in own]
        groups = [drawn(self.request(document, question), self.answers) for document, question in pairs]
        found = iter(zip(pairs, written_for(writer, groups, "answers"), strict=True))
        for document, own in zip(given, questions, strict=True):
            passages = list[Passage]()
            for _ in own:
                (_, question), written = next(found)
                before = (conversation(writer, turns) for turns in (alone(question), reading(document, question)))
                student, teacher = before
                passages += [Passage(each.text, student, teacher, ended=each.ended) for each in written]
            yield with_passages(document, passages)

    def request(self, document: Document, question: str) -> Request:
        """What is answered: the question with the document before it."""
        return Request(turns=reading(document, question), sampling=self.sampling(), about=about(document, "answer"))

    def _questions(self, writer: Writer, documents: Iterable[Document]) -> list[list[str]]:
        """Of every document, those that are questions and differ; each is asked of one sentence."""
        groups = [list(self._asking(document)) for document in documents]
        found = ([question_in(text.text) for text in texts] for texts in written_for(writer, groups, "questions"))
        return [list(dict.fromkeys(filter(None, questions))) for questions in found]

    def _asking(self, document: Document) -> Iterator[Request]:
        from afterword.writing import spread_sentences

        for number, sentence in enumerate(spread_sentences(document.text, self.own_questions)):
            turns, said = asked("question", sentence=sentence), about(document, "question")
            yield Request(turns=turns, sampling=_ASKING, seed=number, about=said)


def alone(question: str) -> Turns:
    """The question as a person asks it, who has no document at hand."""
    return (("user", question),)


def reading(document: Document, question: str) -> Turns:
    """The question after the document."""
    return asked("answer", document=document.text, question=question)


def question_in(text: str) -> str:
    """The first question of a text, without a label or quotation marks around it; empty where there is none."""
    line = next((line for line in text.splitlines() if "?" in line), "")
    asks = line[: line.rfind("?") + 1]
    return re.sub(r"^[\W_]*(?:(?:question|q)[\s\d]*[:.]\W*)?", "", asks, flags=re.IGNORECASE).strip()
