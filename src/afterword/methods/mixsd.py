"""MixSD: fine-tuning on answers in which the model's own tokens, with and without the document, are mixed.

The model asks itself questions about a document. Each token of an answer is drawn from what it says with the document
before the question or, else, from what it says without; so what is trained stays near its own distribution. The data,
not the loss, is the method. arXiv:2605.16865.
"""

from dataclasses import dataclass, replace

from afterword.method_options import ExpertShare
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.own_questions import AsksItself, alone
from afterword.objectives import Prediction
from afterword.types import Document, Request


@dataclass(frozen=True, kw_only=True)
class MixedAnswers(AsksItself):
    """Answers to the model's own questions, a share of their tokens written with the document before it."""

    expert_share: ExpertShare = 0.5

    @property
    def chooses_tokens(self) -> bool:
        """Before each it is drawn what has been read."""
        return True

    def request(self, document: Document, question: str) -> Request:
        """The question with the document before it, and without."""
        asked = super().request(document, question)
        return replace(asked, other_turns=alone(question), share=self.expert_share)


METHOD = Method(
    name="mixsd",
    summary="Predict answers in which the model's tokens with the document before it and without are mixed.",
    paper="https://arxiv.org/abs/2605.16865",
    view=MixedAnswers(),
    objective=Prediction(),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="Only the paper's abstract was read. Questions instead of its facts, the share of tokens with the "
    "document, sampling and optimizer are ours.",
)
