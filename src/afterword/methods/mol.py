"""Mixture of losses: prediction on the documents, KL(student ‖ model as it was) on general text.

arXiv:2505.12043 and arXiv:2509.06650: one token of general text for every token of the domain.
"""

from afterword.data import WholeDocument
from afterword.methods.method import REPLAYS, Method, Replay
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Prediction

METHOD = Method(
    name="mol",
    summary="Predict the documents; on general text, stay near the model as it was (reverse KL).",
    paper="https://arxiv.org/abs/2505.12043",
    view=WholeDocument(averaging="token"),
    objective=Prediction(),
    replay=Replay(objective=REPLAYS["reverse_kl"]),
    general_tokens=0.5,
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="The optimizer is that of the other methods here.",
)
