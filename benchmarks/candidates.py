"""Methods that were tried for the recipe and are not in the package: `--method candidates:NAME` finds them here."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from afterword.corpus.sentences import split_sentences
from afterword.data import Prompted, SplitContext, View, WholeDocument
from afterword.data.views import Writer
from afterword.methods import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.recite import Recited, subject_of
from afterword.methods.written import conversation, with_passages
from afterword.objectives import AdaptivePrediction, Objective, Prediction, SelfDistillation, cross_entropy
from afterword.objectives.closed_forms import Form
from afterword.types import Document, Passage

_WHOLE = "Tell me about {}."
_ONE = "Tell me one thing about {}."
_AGAIN = "{}\n\nRepeat this text word for word."


# ---- what is read


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


@dataclass(frozen=True, kw_only=True)
class Reread(Prompted):
    """The student reads a document once, the teacher twice.

    A teacher that has read a document predicts it again by copying, also what it never knew. What it says at the
    second reading is what the student moves toward at its only one: the token that comes, and how surely.
    """

    @property
    def takes_parts(self) -> bool:
        """A document has to fit the context twice."""
        return True

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document as its own passage. Nothing is written by the model."""
        for document in documents:
            before = f"{document.text.rstrip()}\n\n"
            yield with_passages(document, [Passage(document.text, teacher_before=before, ended=True)])


@dataclass(frozen=True, kw_only=True)
class RecitedFromText(Reread):
    """The same in the model's own turns: the student is asked for what it knows, the teacher to repeat the text."""

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document as a reply, behind a request for each side."""
        for document in documents:
            asked = (_WHOLE.format(subject_of(document)), _AGAIN.format(document.text.strip()))
            student, teacher = (conversation(writer, (("user", text),)) for text in asked)
            yield with_passages(document, [Passage(document.text.strip(), student, teacher, ended=True)])


@dataclass(frozen=True, kw_only=True)
class OtherOpening(Prompted):
    """A sentence of a document, which the teacher reads after its document and the student after another one.

    So both know in which register the text is, and only the teacher what it has said. With `passages` so many sentences
    are drawn in a pass. The first sentence of a document is never trained, and a lone document is not trained at all.
    """

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterator[Document]:
        """Every document with its sentences; the other one is the next, and the first for the last."""
        given = list(documents)
        for document, other in zip(given, [*given[1:], *given[:1]], strict=True):
            if other is not document:
                yield with_passages(document, _after_another(sentences_of(document), sentences_of(other)))


def sentences_of(document: Document) -> list[str]:
    """The sentences, each with the whitespace that stands before it: so they are tokenised as in the document.

    >>> sentences_of(Document(id="a", text="One came. Two went.\\n"))
    ['One came.', ' Two went.']
    """
    text = document.text.rstrip()
    starts = [a for a, _ in split_sentences(text)]
    ends = [*(len(text[:a].rstrip()) for a in starts[1:]), len(text)]
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _after_another(sentences: Sequence[str], others: Sequence[str]) -> Iterator[Passage]:
    """Every sentence but the first, after as many sentences of the other document as there are of its own, or all."""
    openings = list(accumulate(others))
    for number, before in enumerate(accumulate(sentences[:-1]), start=1):
        yield Passage(sentences[number], student_before=openings[min(number, len(openings)) - 1], teacher_before=before)


# ---- how tokens are weighed


@dataclass(frozen=True)
class SurprisePrediction(AdaptivePrediction):
    """Cross-entropy, each token weighted by its surprise over the mean surprise of its step's documents.

    w = −log p / τ between `floor` and `most`, p the student's own probability of the token, τ as in
    AdaptivePrediction: the mean loss of the step's document, the median where there are several. So weights of a
    document have mean 1 before the bounds. No gradient goes through them. It is the reverse of TALR
    (arXiv:2509.20758), which trusts tokens the less, the less they are expected.
    """

    floor: float = 0.25
    most: float = 4.0

    def _token_weights(self, prediction_N: Tensor) -> Tensor:
        if self.step_temperature is None:
            return torch.ones_like(prediction_N)
        return (prediction_N / self.step_temperature).clamp(self.floor, self.most)


@dataclass(frozen=True)
class RemainingPrediction(AdaptivePrediction):
    """Cross-entropy, every token weighted by what is left of its document's loss: what is still unknown gets more.

    w = τ / `nats` between `floor` and `most`, τ as in AdaptivePrediction, which with one document a step is its mean
    loss in nats, as the student is now. At `nats` a document weighs 1. No gradient goes through the weight.
    """

    floor: float = 0.1
    most: float = 2.0
    nats: float = 1.5

    def _token_weights(self, prediction_N: Tensor) -> Tensor:
        if self.step_temperature is None:
            return torch.ones_like(prediction_N)
        return torch.full_like(prediction_N, min(max(self.step_temperature / self.nats, self.floor), self.most))


@dataclass(frozen=True)
class UnknownPrediction(Prediction):
    """Cross-entropy of the tokens that the student does not know yet: those that it gives less than half.

    w = 1 where −log p > `known_nats`, else 0. A document that is known whole is not trained further.
    """

    known_nats: float = math.log(2)

    @property
    def coefficients(self) -> Mapping[str, float]:
        """The prediction of what is unknown, and that of all beside it."""
        return {"weighted_prediction_nats": 1.0, "prediction_nats": 0.0}

    @property
    def form(self) -> Form:
        """Cross-entropy with weights."""
        return Form(("weighted_prediction", "prediction"), 1.0, token_weights=self._token_weights)

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−w · log p, and −log p."""
        prediction = cross_entropy(student_NV, target_ids_N)
        return torch.stack([self._token_weights(prediction.detach()) * prediction, prediction], dim=-1)

    def _token_weights(self, prediction_N: Tensor) -> Tensor:
        return (prediction_N > self.known_nats).to(prediction_N.dtype)


@dataclass(frozen=True)
class ContrastPrediction:
    """Cross-entropy, each token weighted by how student and teacher differ on it.

    The raw weight is `of_teacher` · −log p_teacher + `of_student` · −log p_student, at least 0; over its mean, between
    `floor` and `most`, and over its mean again: weights have mean 1 over the positions that are given at once, and no
    gradient. These are a document where it is alone in a step and fits `logits_workspace_mib`. There is no closed
    form, so it is slower.
    """

    of_teacher: float
    of_student: float
    floor: float = 0.25
    most: float = 4.0
    needs_teacher: bool = True

    @property
    def form(self) -> None:
        """There is none."""
        return None

    @property
    def coefficients(self) -> Mapping[str, float]:
        """The weighted prediction, the plain one beside it, and the teacher's."""
        return {"weighted_prediction_nats": 1.0, "prediction_nats": 0.0, "teacher_prediction_nats": 0.0}

    def parts(self, student_NV: Tensor, teacher_NV: Tensor | None, target_ids_N: Tensor) -> Tensor:
        """−w · log p, −log p, and the teacher's −log p."""
        assert teacher_NV is not None
        prediction, teachers = (cross_entropy(logits, target_ids_N) for logits in (student_NV, teacher_NV))
        raw = self.of_teacher * teachers.detach() + self.of_student * prediction.detach()
        return torch.stack([self._weights(raw) * prediction, prediction, teachers], dim=-1)

    def _weights(self, raw_N: Tensor) -> Tensor:
        raw_N = raw_N.clamp(min=0)
        bounded_N = (raw_N / raw_N.mean().clamp(min=1e-6)).clamp(self.floor, self.most)
        return bounded_N / bounded_N.mean()


# ---- the methods

_ADAMW = {**AUTHORS_ADAMW, "learning_rate": 1e-5}


def _candidate(name: str, summary: str, view: View, objective: Objective) -> Method:
    """Everything else as fine-tuning has it."""
    ours = {"paper": "", "defaults": _ADAMW, "decay_all_parameters": True}
    return Method(name=name, summary=summary, view=view, objective=objective, **ours)


RECITE_WITH_PARTS = _candidate(
    "recite_with_parts",
    "Predict the document, and each of its sentences, as the model's reply.",
    RecitedWithParts(),
    Prediction(),
)
SENTENCES = _candidate(
    "sentences", "Predict every sentence of the document alone.", SplitContext(strategy="all"), Prediction()
)
_TOWARD_TEACHER = SelfDistillation(alpha=0.0, temperature=1.0, swap=False)
REREAD = _candidate("reread", "Match the model that reads the document a second time.", Reread(), _TOWARD_TEACHER)
RECITE_FROM_TEXT = _candidate(
    "recite_from_text",
    "Match, on the document as a reply, the model that was given it to repeat.",
    RecitedFromText(),
    _TOWARD_TEACHER,
)
OTHER_OPENING = _candidate(
    "other_opening",
    "DiSC whose student reads another document before the sentence.",
    OtherOpening(passages=5),
    replace(_TOWARD_TEACHER, temperature=2.0),
)
SURPRISE = _candidate(
    "surprise",
    "Fine-tuning that gives tokens the more weight, the less the student expects them.",
    WholeDocument(),
    SurprisePrediction(),
)
REFERENCE_SURPRISE = _candidate(
    "reference_surprise",
    "Fine-tuning that gives tokens the more weight, the less the model expected them as it was.",
    WholeDocument(),
    ContrastPrediction(of_teacher=1.0, of_student=0.0),
)
CONTEXT_GAIN = _candidate(
    "context_gain",
    "Predict every sentence alone, with the more weight for a token, the more its document would help.",
    SplitContext(strategy="all"),
    ContrastPrediction(of_teacher=-1.0, of_student=1.0),
)
REMAINING = _candidate(
    "remaining",
    "Fine-tuning that gives documents weight by what is left of their loss.",
    WholeDocument(),
    RemainingPrediction(),
)
UNKNOWN = _candidate(
    "unknown", "Fine-tuning on the tokens that the student does not know yet.", WholeDocument(), UnknownPrediction()
)
