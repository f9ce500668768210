"""Mix-CPT, stage 1: documents, instructions and preferences as plain text, under logit-swap self-distillation.

The teacher is the model as it was given; where it is wrong, its largest logit and the gold token's are exchanged, so it
teaches the fact and everything else that it knew. Jiang et al. 2024, arXiv:2407.10804, sections 3.1 and 3.2. At α = 1
it is continual pre-training. Stage 2 is `afterword align`.
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import SelfDistillation

METHOD = Method(
    name="mixcpt",
    summary="Predict documents and general text, and match the model as it was, "
    "once its first choice and the right token have changed places.",
    paper="https://arxiv.org/abs/2407.10804",
    view=WholeDocument(averaging="token"),
    objective=SelfDistillation(alpha=0.5, direction="forward", temperature=1.0),
    mixes=True,
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="The paper does not give α, the direction of the divergence, τ, the proportions or the optimizer: ours.",
)
