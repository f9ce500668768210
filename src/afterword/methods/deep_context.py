"""Deep context distillation: every piece of a document as if the one before it had been read, in every layer.

The student reads a piece, the teacher the piece before it as well. Caccia et al. 2025, arXiv:2503.08727: the KL
divergence from the teacher plus, at the same positions, the mean over layers of the distance between hidden states as a
share of the teacher's. The paper trains a LoRA adapter of rank 16 at 1e-3.
"""

from afterword.data import NextPiece
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import DeepDistillation, forward_kl

METHOD = Method(
    name="deep_context",
    summary="Match, in every layer, the model that has read the piece of the document before this one.",
    paper="https://arxiv.org/abs/2503.08727",
    view=NextPiece(),
    objective=DeepDistillation(forward_kl),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="All weights are trained, at 1e-5; the paper's own is --use-peft --lora-r 16 --learning-rate 1e-3. "
    "Pieces of at most 128 tokens end at sentences. The distance between hidden states is taken at every position and "
    "averaged as the divergence is; the embedding is no layer.",
)
