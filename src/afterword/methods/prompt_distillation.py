"""Prompt distillation: answers should be as likely without the document as with it in the prompt.

The model asks itself questions about a document and answers them with the document at hand; the teacher reads it
before the question, the student the question alone. Kujanpää et al. 2024, arXiv:2412.14964.
"""

from afterword.methods.method import Method
from afterword.methods.optimizer import AUTHORS_ADAMW
from afterword.methods.own_questions import AsksItself
from afterword.objectives import Distillation, forward_kl

METHOD = Method(
    name="prompt_distillation",
    summary="Match, on answers to the model's own questions, the model that has the document in its prompt.",
    paper="https://arxiv.org/abs/2412.14964",
    view=AsksItself(),
    objective=Distillation(forward_kl),
    defaults={**AUTHORS_ADAMW, "learning_rate": 1e-5},
    decay_all_parameters=True,
    deviations="The prompts, the number of questions, temperatures and optimizer are ours; all weights are trained "
    "unless use_peft is set, where the paper trains an adapter.",
)
