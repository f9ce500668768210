"""What a trainer checks before its first step: its tokenizer, the size of a step, and how texts may lie in a row."""

import warnings
from collections.abc import Collection, Iterable
from typing import Any

from transformers import TrainingArguments

from afterword import models
from afterword.data import SpecialTokens, special_tokens
from afterword.data.batching import Packing
from afterword.distributed import device_type
from afterword.errors import CheckpointError, ConfigError
from afterword.methods import Method
from afterword.training.sources import Source


def checked_layout(model: Any) -> str:
    """`packed` where this model keeps packed texts apart; otherwise `padded`, said aloud."""
    if models.packs_cleanly(model):
        return "packed"
    problem = f"{type(model).__name__} reads across the border of packed texts"
    warnings.warn(f"{problem}, so every sequence gets a row of its own (slower, same result).", stacklevel=3)
    return "padded"


def packing_for(
    model: Any, tokens: int | None = None, *, longest: int | None = None, layout: str | None = None
) -> Packing:
    """How what this model reads is laid out, so that every text gives what it gives alone.

    `longest`: what one example may have; `layout`: as asked for, else packed where that is clean.
    """
    config, tokens = models.causal_lm(model).config, tokens or default_tokens()
    layout = layout or checked_layout(model)
    if layout == "packed":
        tokens = min(tokens, models.row_limit(config) or tokens)
    most = None if longest is None else max(tokens, longest)
    return Packing(tokens, layout, example_tokens=most, alone_beyond=models.alone_beyond(config))


def default_tokens() -> int:
    """Tokens of a micro-batch. On a CPU a few hundred keep it busy, and attention in a longer row costs more."""
    return 4096 if device_type() == "cuda" else 512


def on_one_gpu(args: TrainingArguments) -> TrainingArguments:
    """The arguments, for one GPU: one process trains on one. Where more are visible, that is said.

    The Trainer would cut every batch by its rows among all of them (DataParallel). A batch of ours is one row, or
    rows whose trained positions are counted together.
    """
    if (visible := args.n_gpu) > 1:
        problem = f"{visible} GPUs are visible, and one process trains on one: {args.device}"
        how = f"torchrun --nproc_per_node {visible} -m afterword adapt …"
        warnings.warn(f"{problem}. To use all, start it by {how}", stacklevel=3)
        args._n_gpu = 1
    return args


def special_tokens_for(tokenizer: Any, method: Method, general: Collection[str] = ()) -> SpecialTokens:
    """What stands around the documents of a method. CheckpointError where it needs an EOS that is not there.

    `general`: names of the sources of general text that are read beside them.
    """
    special = special_tokens(tokenizer, method.view.bos, method.view.join)
    if special.eos_id is None and any(term.view.needs_eos for term in method.terms(general=general)):
        problem = f"tokenizer: the method {method.name!r} ends every document with EOS, and this tokenizer has none."
        raise CheckpointError(f"{problem} Set tokenizer.eos_token and save it with the model.")
    return special


def check_tokens(model: Any, tokenizer: Any, parts: Iterable[Source]) -> None:
    """CheckpointError where what will be read has tokens that the model has no embedding for."""
    rows = models.vocabulary_of(model)
    # Only such a tokenizer can give them, and reading every window takes its time.
    if max(tokenizer.get_vocab().values(), default=0) >= rows:
        largest = (part.windows.largest_token() for part in parts)
        models.refuse_unembedded(tokenizer, largest, rows, str(model.name_or_path) or type(model).__name__)


def check_step(args: TrainingArguments, documents_per_step: int, step_tokens: int | None) -> None:
    """ConfigError where a step of documents has fewer than it has parts."""
    processes = int(args.world_size)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]  (a property without a type)
    parts = processes * args.gradient_accumulation_steps
    if step_tokens is None and documents_per_step < parts:
        why = f"{processes} processes × gradient_accumulation_steps {args.gradient_accumulation_steps}"
        problem = f"documents_per_step: {documents_per_step} is fewer than the {parts} parts of a step ({why})"
        raise ConfigError(f"{problem}, so some would train on nothing. Use at least {parts}, or fewer parts.")
