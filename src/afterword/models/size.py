"""The sizes of a model that FLOPs follow from."""

from dataclasses import dataclass
from typing import Any

from afterword.models.backbone import backbone_of, causal_lm, head_of
from afterword.models.shapes import shape_of


@dataclass(frozen=True)
class ModelSize:
    """What FLOPs follow from."""

    backbone: int
    """N: parameters without the embeddings and the head. Of a mixture of experts: all of them."""
    hidden: int
    """H."""
    vocabulary: int
    """V."""


def size_of(model: Any) -> ModelSize:
    """The sizes of a causal language model."""
    backbone, head = backbone_of(model), head_of(model)
    embeddings = causal_lm(model).get_input_embeddings().weight.numel()
    parameters = sum(shape_of(parameter).numel() for parameter in backbone.parameters()) - embeddings
    return ModelSize(parameters, head.weight.shape[1], head.weight.shape[0])
