"""The first model of several runs in a row, which stays what a run is held to (the setting `reference`).

The run begins with the weights of the model that it is given. The reference, frozen, is the teacher of its method and
what writes for it; drift, the forgetting budget, the way back of a budget and `l2sp` start from it.
"""

from typing import Any

from torch import Tensor

from afterword import models
from afterword.errors import CheckpointError
from afterword.settings.adapt import AdaptSettings
from afterword.writing.opening import named_by


def refuse_other_tokens(settings: AdaptSettings) -> None:
    """CheckpointError for a reference whose tokens are not those of the model: what both say could not be compared.

    ConfigError where there is no model of its name. No weights are loaded.
    """
    if not settings.reference:
        return
    own = models.load_tokenizer(settings.model_name_or_path).get_vocab()
    with named_by("reference"):
        models.refuse_name(settings.reference)
        other = models.load_tokenizer(settings.reference).get_vocab()
    if own != other:
        problem = f"{settings.reference!r} has another tokenizer than {settings.model_name_or_path!r}"
        raise CheckpointError(f"reference: {problem}. Give the model that this one was made of.")


def reference_fingerprint(settings: AdaptSettings) -> str | None:
    """Fingerprint of the reference's weights as they are stored; None where there is none of its own."""
    if not settings.reference:
        return None
    dtype = models.saved_dtype(models.load_config(settings.reference))
    return models.weights_fingerprint(models.load_model(settings.reference, dtype=dtype))


def reference_weights(settings: AdaptSettings, model: Any) -> dict[str, Tensor]:
    """What the weights that a model trains are in the reference, by name, on the CPU, in the model's precision.

    CheckpointError where the reference has no weight of that name and shape.
    """
    assert settings.reference, "asked for where there is one"
    dtype = next(model.parameters()).dtype
    known = dict(models.load_model(settings.reference, dtype=dtype).named_parameters())
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for name, weight in trained.items():
        if name not in known or known[name].shape != weight.shape:
            problem = f"{settings.reference!r} has no {name} of the shape {list(weight.shape)}"
            raise CheckpointError(f"reference: {problem}. Give the model that this one was made of.")
    return {name: known[name].detach() for name in trained}
