"""What is the same for all who train on the same documents side by side, and what is noted of each."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from counting import Meter, Read, attention_flops
from machine import adamw_bytes
from shapes import config_of, random_model
from texts import tokenizer

from afterword.comparison.costs import training_flops
from afterword.models import size_of

PRECISIONS = ("float32", "mixed", "bfloat16")
"""float32; float32 weights under bfloat16 autocast, with a bfloat16 teacher where one can be given; all in bfloat16."""


@dataclass(frozen=True)
class Race:
    """The documents, the model, the machine."""

    documents: list[list[str]]
    """As sentences; all of them are read once."""
    steps: int
    per_step: int
    """Documents."""
    micro_batch_tokens: int
    """Wanted at a time, of all who do not take a whole step at once."""
    shape: str
    device: torch.device
    precision: str
    attention: str | None
    gradient_checkpointing: bool

    @cached_property
    def vocabulary(self) -> int:
        """Words."""
        return config_of(self.shape).vocab_size

    @cached_property
    def words(self) -> Any:
        """The tokenizer."""
        return tokenizer(self.vocabulary)

    @cached_property
    def texts(self) -> list[str]:
        """The documents whole."""
        return [" ".join(parts) for parts in self.documents]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of every document, EOS included."""
        return [len(self.words(text)["input_ids"]) + 1 for text in self.texts]

    @property
    def step_tokens(self) -> float:
        """Of the documents of a step, on average: what everyone is to read."""
        return sum(self.lengths) / self.steps

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights that are trained."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def product_dtype(self) -> torch.dtype:
        """That products are made in."""
        return torch.float32 if self.precision == "float32" else torch.bfloat16

    def student(self) -> Any:
        """The model, ever the same."""
        return random_model(self.shape, dtype=self.dtype, device=self.device, attention=self.attention)

    def twin(self, student: Any) -> Any:
        """A frozen copy to learn from."""
        return copy.deepcopy(student).to(self.product_dtype).eval().requires_grad_(False)

    def arguments(self) -> dict[str, Any]:
        """What every trainer is told."""
        return {
            "max_steps": self.steps,
            "learning_rate": 1e-5,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "bf16": self.precision == "mixed",
            "use_cpu": self.device.type == "cpu",
            "gradient_checkpointing": self.gradient_checkpointing,
        }


@dataclass(frozen=True)
class Measured:
    """A contender's step."""

    seconds: float
    student: Read
    teacher: Read
    document_tokens: float
    """Of the documents that it dealt with."""
    flops: float
    """By METHODS §1 of what was read, heads included, attention left out."""
    attention_flops: float
    optimizer_bytes: int

    def limit_seconds(self, product_flops: float, copied_bytes: float) -> float:
        """All products at the speed of a large one, and then AdamW at the speed of a copy."""
        return (self.flops + self.attention_flops) / product_flops + self.optimizer_bytes / copied_bytes


Contender = Callable[[Race, Path], Measured]
"""Trains in a folder of its own."""


def measured(meter: Meter, student: Any, heads: tuple[float, float], document_tokens: float | None = None) -> Measured:
    """What a meter noted. `heads`: positions in a step with the student's head, and with the teacher's.

    Documents are taken to be read whole by one side, in the steps or before them, unless their tokens are given.
    """
    sides = {side: meter.read(side) for side in ("student", "teacher")}
    whole = max(read.tokens for read in (*sides.values(), meter.read_before("student"), meter.read_before("teacher")))
    counts = {
        "student_tokens": round(sides["student"].tokens),
        "teacher_tokens": round(sides["teacher"].tokens),
        "trained_positions": round(heads[0]),
        "teacher_positions": round(heads[1]),
    }
    return Measured(
        seconds=meter.seconds,
        **sides,
        document_tokens=whole if document_tokens is None else document_tokens,
        flops=training_flops(size_of(student), **counts, frozen=False),
        attention_flops=attention_flops(student.config, *sides.values()),
        optimizer_bytes=adamw_bytes(student.parameters()),
    )


def shares(whole: int, wanted: float) -> tuple[int, int]:
    """The number that divides `whole` and is nearest to what is wanted, and how often it goes."""
    divisors = [each for each in range(1, whole + 1) if whole % each == 0]
    size = min(divisors, key=lambda each: abs(each - wanted))
    return size, whole // size


def fastest(found: dict[str, Measured], names: Sequence[str]) -> str | None:
    """Of these names, where any was measured."""
    there = [name for name in names if name in found]
    return min(there, key=lambda name: found[name].seconds, default=None)
