"""How what a model reads is laid out in micro-batches, so that every text gives what it gives alone."""

import warnings
from typing import Any

from afterword.data.batching import Packing
from afterword.distributed import device_type
from afterword.models.backbone import causal_lm
from afterword.models.checks import alone_beyond, packs_cleanly, row_limit


def checked_layout(model: Any) -> str:
    """`packed` where this model keeps packed texts apart; otherwise `padded`, said aloud."""
    if packs_cleanly(model):
        return "packed"
    problem = f"{type(model).__name__} reads across the border of packed texts"
    warnings.warn(f"{problem}, so every sequence gets a row of its own (slower, same result).", stacklevel=3)
    return "padded"


def packing_for(
    model: Any, tokens: int | None = None, *, longest: int | None = None, layout: str | None = None
) -> Packing:
    """The packing of a model. `tokens` of a micro-batch, None: as many as suit the machine.

    `longest`: what one example may have; `layout`: as asked for, else packed where that is clean.
    """
    config, tokens = causal_lm(model).config, tokens or default_tokens()
    layout = layout or checked_layout(model)
    if layout == "packed":
        tokens = min(tokens, row_limit(config) or tokens)
    most = None if longest is None else max(tokens, longest)
    return Packing(tokens, layout, example_tokens=most, alone_beyond=alone_beyond(config))


def default_tokens() -> int:
    """Tokens of a micro-batch. On a CPU a few hundred keep it busy, and attention in a longer row costs more."""
    return 4096 if device_type() == "cuda" else 512
