"""The optimizer that the authors of DiSC use for every method they compare (arXiv:2602.16093, their code)."""

_ADAMW = {"weight_decay": 0.01, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
_CONSTANT = {"lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 0.0, "num_train_epochs": 1}
AUTHORS_ADAMW = {**_ADAMW, **_CONSTANT}
"""Constant rate, no warm-up, no clipping, decay on every parameter (see Method.decay_all_parameters)."""
