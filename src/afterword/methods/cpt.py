"""Continual pre-training: next-token prediction on documents and general text, the baseline of Mix-CPT.

It is `mixcpt` at α = 1, where nothing is distilled (arXiv:2407.10804, section 4).
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Prediction

METHOD = Method(
    name="cpt",
    summary="Predict every token of documents and general text: continual pre-training, no teacher.",
    paper="https://arxiv.org/abs/2407.10804",
    view=WholeDocument(averaging="token"),
    objective=Prediction(),
    mixes=True,
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="Proportions and optimizer are not published: ours.",
)
