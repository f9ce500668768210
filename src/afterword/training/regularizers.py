"""Two ways for any method's weights to stay near where they started: a penalty, and an average.

Both act on the parameters that are trained; under LoRA on the adapter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  (dicts of anything)
from torch import Tensor
from transformers import TrainerCallback

from afterword.distributed import is_main_process, sharded_like, whole

AVERAGE = "average.safetensors"
"""In a checkpoint between two averagings."""


@dataclass(frozen=True, kw_only=True)
class Staying:
    """What holds the weights back; by default nothing."""

    pull: float | None = None
    """λ of L2-SP."""
    toward: Mapping[str, Tensor] | None = None
    """The weights that it pulls to, by name; None: those before the first step."""
    average: float | None = None
    """Share of the running average that is kept at an averaging."""
    average_steps: int = 1


def trained_weights(model: Any) -> dict[str, Tensor]:
    """Copies of the parameters that are trained, by name; of a sharded model in shards."""
    return {name: p.detach().clone() for name, p in _named_parameters(model) if p.requires_grad}


def _named_parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    """As the model names them, whatever is put round its layers later."""
    for name, parameter in model.named_parameters():
        yield name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", ""), parameter


@torch.no_grad()
def add_pull_to_start(model: Any, start: dict[str, Tensor], strength: float) -> None:
    """Add the gradient of (λ/2) · ‖θ − θ0‖² to the gradients there are: L2-SP, Li et al. 2018, arXiv:1802.01483."""
    for name, parameter in _named_parameters(model):
        if parameter.grad is not None:
            start[name] = sharded_like(start[name], parameter)
            parameter.grad.add_(parameter - start[name], alpha=strength)


class WeightAverage(TrainerCallback):
    """θ ← a · average + (1 − a) · θ every so many steps, the average being what came of it the last time.

    arXiv:2506.00288: a = 0.92, every 1 to 10 steps.
    """

    def __init__(self, kept: float, every: int):
        self.kept, self.every = kept, every
        self.average: dict[str, Tensor] = {}
        self.resumed_from: Path | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Start from the weights as they are, or from the average that a checkpoint kept."""
        self.average = trained_weights(model)
        if self.resumed_from and (file := self.resumed_from / AVERAGE).is_file():
            saved = load_file(file)
            self.average = {name: sharded_like(saved[name], tensor) for name, tensor in self.average.items()}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Average where it is time."""
        if state.global_step % self.every:
            return
        for name, parameter in _named_parameters(model):
            if name in self.average:
                parameter.copy_(self.kept * self.average[name] + (1 - self.kept) * parameter)
                self.average[name].copy_(parameter)

    def save(self, folder: Path, step: int) -> None:
        """Write the average into a checkpoint. At the step of an averaging it is the weights themselves.

        All processes call it together.
        """
        if not step % self.every:
            return
        average = {name: whole(tensor).contiguous() for name, tensor in self.average.items()}
        if is_main_process():
            save_file(average, folder / AVERAGE)
