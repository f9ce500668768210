"""DiSC: a sentence should be as predictable without its document as it is with it.

The teacher reads the document up to and including the sentence, the student the sentence alone. Padmanabhan
et al. 2026, arXiv:2602.16093; constants from the authors' code. No generation, no chat template, no
cross-entropy. `join="authors"` restores the paper's tokenisation of each sentence on its own.
"""

from afterword.data import SplitContext
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Distillation, forward_kl

METHOD = Method(
    name="disc",
    summary="Match, on each sentence alone, the model that has read the document before it.",
    paper="https://arxiv.org/abs/2602.16093",
    view=SplitContext(strategy="sentence", targets=5),
    objective=Distillation(forward_kl, temperature=2.0),
    # Their rate for Qwen2.5 3B and 7B. With τ² and a KL it does not compare with a cross-entropy rate.
    defaults={**AUTHORS_ADAMW, "learning_rate": 3e-6},
    decay_all_parameters=True,
    deviations="The document is tokenised once and cut at sentences; BOS on both sides as the tokenizer adds it.",
)
