"""Learning without forgetting: prediction and ordinary self-distillation on everything that is read.

Li and Hoiem 2016, arXiv:1606.09282, for next tokens; what Mix-CPT is without its swap.
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import SelfDistillation

METHOD = Method(
    name="lwf",
    summary="Predict documents and general text while staying near the model as it was: learning without forgetting.",
    paper="https://arxiv.org/abs/1606.09282",
    view=WholeDocument(averaging="token"),
    objective=SelfDistillation(alpha=0.5, temperature=2.0, swap=False),
    mixes=True,
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="α and the optimizer for language models are ours.",
)
