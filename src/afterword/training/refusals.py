"""What an objective cannot be combined with, in one sentence each."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainingArguments

from afterword.errors import ConfigError
from afterword.methods import Term
from afterword.objectives import DeepDistillation
from afterword.training.sharding import sharded_by


def refuse_deep(method: str, terms: Sequence[Term], args: TrainingArguments, *, cached: bool) -> None:
    """ConfigError where hidden states of all layers are compared, and there are those of the last one only."""
    if not any(isinstance(term.objective, DeepDistillation) for term in terms):
        return
    why, problems = f"{method} compares hidden states of all layers", list[str]()
    if cached:
        problems.append(f"teacher: 'cached' has one layer, and {why}. Use copy, or adapter_off.")
    problems += shard_problems(args, why)
    if problems:
        raise ConfigError(problems)


def shard_problems(args: TrainingArguments, why: str) -> list[str]:
    """What is wrong with weights in shards, for a method that needs them whole; nothing where they are whole."""
    shards: dict[str, Any] = {kind: getattr(args, kind) for kind in ("fsdp", "deepspeed")}
    kind = sharded_by(shards)
    return [f"{kind}: has the weights in shards, and {why}. Leave it out, or use another method."] if kind else []
