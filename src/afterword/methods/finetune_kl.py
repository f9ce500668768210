"""Fine-tuning with a divergence from the model as it was, on the documents themselves.

A baseline of DiSC's paper (arXiv:2602.16093, its code): β = 0.1, τ = 1, otherwise as fine-tuning there.
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import PredictionNear

METHOD = Method(
    name="finetune_kl",
    summary="Fine-tuning plus β · KL from the model as it was, on the same documents.",
    paper="https://arxiv.org/abs/2602.16093",
    view=WholeDocument(),
    objective=PredictionNear(beta=0.1, temperature=1.0),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="EOS after each document, in the loss; BOS as the tokenizer adds it.",
)
