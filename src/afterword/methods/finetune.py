"""Fine-tuning: cross-entropy on whole documents, the baseline every other method is judged against.

As in the paper of DiSC (arXiv:2602.16093): one document a step, the same optimizer; its rates that adapt best
are 1e-5 for Qwen2.5 on KUP. Documents are packed without reading across their borders.
"""

from afterword.data import WholeDocument
from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.objectives import Prediction

METHOD = Method(
    name="finetune",
    summary="Predict every token of the document; no teacher. The baseline.",
    paper="https://arxiv.org/abs/2602.16093",
    view=WholeDocument(),
    objective=Prediction(),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="EOS after each document, in the loss; BOS as the tokenizer adds it.",
)
