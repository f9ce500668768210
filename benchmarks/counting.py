"""What models read in an optimizer step, counted from the batches that reach them; and how long the step took.

The one rule: nothing is taken from a contender's settings. Whatever its trainer packs, pads, cuts or repeats, the
tokens of a step are those that its backbone was called with, padding left out.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from machine import wait_for
from torch import Tensor
from transformers import TrainerCallback

from afterword import models


@dataclass(frozen=True)
class Read:
    """What one or several forwards read."""

    tokens: float = 0
    """Without padding."""
    sequences: float = 0
    """What attention keeps apart."""
    squares: float = 0
    """Σ t² over the sequences: attention's products go by it."""

    def __add__(self, other: "Read") -> "Read":
        """Both."""
        return Read(self.tokens + other.tokens, self.sequences + other.sequences, self.squares + other.squares)

    def over(self, parts: float) -> "Read":
        """The mean of so many."""
        return Read(self.tokens / parts, self.sequences / parts, self.squares / parts)


def read_of(ids: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Read:
    """Of one forward, from `input_ids`, `attention_mask` and `position_ids`, [B, T], as the backbone got them.

    With a mask, a row is a sequence of as many tokens as it has ones. Without, all are tokens, and a sequence begins
    with every row and wherever positions do not go on: that is where transformers keeps packed texts apart.
    """
    if mask is not None:
        lengths = mask.sum(1).tolist()
    else:
        places = ids.new_ones(ids.shape).cumsum(1) if positions is None else positions.expand(ids.shape)
        begins = (places.diff(dim=1, prepend=places[:, :1]) != 1).flatten().nonzero().flatten().tolist()
        lengths = [end - start for start, end in itertools.pairwise([*begins, ids.numel()])]
    return Read(sum(lengths), len(lengths), sum(length**2 for length in lengths))


def attention_flops(config: Any, student: Read, teacher: Read) -> float:
    """Of attention's own products: 2 t² a channel and layer, as it is causal; thrice that with a backward."""
    width = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return float(width * (3 * student.squares + teacher.squares))


class Meter(TrainerCallback):
    """Seconds of every optimizer step, and what was read in it by the models that it listens to.

    A step lasts from the end of the one before: its batches, the optimizer and whatever the trainer notes are in it.
    """

    def __init__(self, device: Any = "cpu") -> None:
        self.device = device
        self.ends: list[float] = []
        self.calls: dict[tuple[str, int], list[tuple[Tensor, Tensor | None, Tensor | None]]] = defaultdict(list)
        """Inputs by side and number of the step, from 1 on; under 0 what was read before the first."""

    def listen(self, **sides: Any) -> "Meter":
        """Count what these models read from now on, by the name that each is given here."""
        for side, model in sides.items():
            models.backbone_of(model).register_forward_pre_hook(partial(self._note, side), with_kwargs=True)
        return self

    def _note(self, side: str, _: Any, positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        assert not positional, "transformers calls its backbones by name"
        # Counted when all is over: on a GPU a sum would be waited for.
        inputs = (named["input_ids"], named.get("attention_mask"), named.get("position_ids"))
        self.calls[side, len(self.ends)].append(inputs)

    def tick(self) -> None:
        """A step ends here, and the next begins; before the first step, that one begins."""
        wait_for(self.device)
        self.ends.append(time.perf_counter())

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The first step begins; every other one did where the one before ended."""
        if not self.ends:
            self.tick()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer's step is done."""
        self.tick()

    @property
    def steps(self) -> int:
        """That ended."""
        return len(self.ends) - 1

    @property
    def seconds(self) -> float:
        """Of a step: the median, without the first two where there are more."""
        times = [end - start for start, end in itertools.pairwise(self.ends)]
        return median(times[2:] or times)

    def read(self, side: str) -> Read:
        """By a side in a step: the mean of all steps."""
        return self._sum(side, range(1, self.steps + 1)).over(self.steps)

    def read_before(self, side: str) -> Read:
        """By a side before the first step (a teacher that is cached), spread over the steps."""
        return self._sum(side, range(1)).over(self.steps)

    def _sum(self, side: str, steps: range) -> Read:
        return sum((read_of(*call) for step in steps for call in self.calls[side, step]), start=Read())
