"""DiSC and Mix-CPT in one run: split contexts on the documents, logit-swap self-distillation on general text.

Ours; neither paper does this. One optimizer; each objective is divided by its own count, and `replay_documents` puts
the logit swap on the documents, read whole, as well.
"""

from afterword.data import SplitContext
from afterword.methods.method import REPLAYS, Method, Replay
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Distillation, forward_kl

METHOD = Method(
    name="disc_mixcpt",
    summary="DiSC on the documents, Mix-CPT's logit swap on general text (with replay_documents on both).",
    paper="https://arxiv.org/abs/2602.16093",
    view=SplitContext(strategy="sentence", targets=5),
    objective=Distillation(forward_kl, temperature=2.0),
    replay=Replay(objective=REPLAYS["swap"]),
    defaults={**AUTHORS_ADAMW, "learning_rate": 3e-6},
    decay_all_parameters=True,
    deviations="A combination of our own; also arXiv:2407.10804.",
)
