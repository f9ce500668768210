"""Token-adaptive loss reweighting: fine-tuning that trusts tokens the less, the less the student expects them.

arXiv:2509.20758, constants from its code: w = max(p^(1/τ), 0.01) with p ≥ 1e-6 and no gradient through w, τ the median
over the step's sequences of their mean loss, which takes one pass without gradient over the step.
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import AdaptivePrediction

METHOD = Method(
    name="talr",
    summary="Fine-tuning that gives tokens the less weight, the less the student expects them.",
    paper="https://arxiv.org/abs/2509.20758",
    view=WholeDocument(averaging="token"),
    objective=AdaptivePrediction(floor=0.01),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="EOS after each document, in the loss; the optimizer is that of the other methods here.",
)
