"""Losses: pure functions of tensors. The dense form is the definition; the fused one agrees with it."""

# pyright: reportUnusedImport=false
from afterword.objectives.dense import cross_entropy, forward_kl, jsd, of_logprobs, reverse_kl, swapped_kl
from afterword.objectives.fused import LOGITS_WORKSPACE_MIB, hidden_losses, hidden_parts, rows_per_chunk, weighted_sum
from afterword.objectives.head import Head
from afterword.objectives.objective import (
    AdaptivePrediction,
    Comparison,
    DeepDistillation,
    Distillation,
    Objective,
    Prediction,
    PredictionNear,
    SelfDistillation,
    hidden_distance,
    total,
)
