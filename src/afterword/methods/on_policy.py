"""On-policy self-distillation: the student answers, and the model that has the document says how it would go on.

The model asks itself questions about a document. The student answers them as it is now; the teacher reads the document,
the question and that answer, and the student moves toward it at every token of the answer but the first three. Answers
are written anew as the student changes. Shenfeld et al. 2026, arXiv:2601.19897 (SDFT).
"""

from dataclasses import dataclass

from afterword.method_options import RefreshSteps, SamplingTemperature, SkipTokens, TeacherAverage, TopP
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.own_questions import AsksItself, alone
from afterword.objectives import SelfDistillation
from afterword.types import Document, Request, Rewriting


@dataclass(frozen=True, kw_only=True)
class OwnAnswers(AsksItself):
    """The student's answers to its questions, which it writes without the document."""

    sampling_temperature: SamplingTemperature = 1.0
    top_p: TopP = 1.0
    refresh_steps: RefreshSteps = 8
    skip_tokens: SkipTokens = 3
    teacher_average: TeacherAverage = 0.0

    @property
    def follows_student(self) -> float:
        """The paper's teacher is such an average, with 0.01."""
        return self.teacher_average

    @property
    def rewriting(self) -> Rewriting:
        """The student writes its answers anew, by the same draws."""
        return Rewriting(steps=self.refresh_steps, sampling=self.sampling())

    def request(self, document: Document, question: str) -> Request:
        """The question alone. Before the first step the student is the model as it was."""
        return Request(turns=alone(question), sampling=self.sampling(), about=document.id)


METHOD = Method(
    name="on_policy",
    summary="Match, on the student's own answers to its questions, the model that has the document in its prompt.",
    paper="https://arxiv.org/abs/2601.19897",
    view=OwnAnswers(),
    objective=SelfDistillation(alpha=0.0, direction="reverse", swap=False),
    defaults={**AUTHORS_ADAMW, "learning_rate": 2e-5, "lr_scheduler_type": "cosine", "warmup_steps": 0.1},
    decay_all_parameters=True,
    deviations="The teacher is the model as it was; the paper's is a running average of the student, teacher_average "
    "0.01. It reads the document, not a demonstration. Answers are written anew every refresh_steps steps, not each. "
    "Sources disagree on the direction: reverse. A step has documents_per_step documents, the paper's 32 samples.",
)
