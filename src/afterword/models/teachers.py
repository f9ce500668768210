"""Teachers: the model as it was given, frozen. Hidden states in eval mode and without gradient."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from afterword.models.backbone import head_of, trained_states
from afterword.objectives import Head
from afterword.types import View


class Teacher(Protocol):
    """What a training step asks of a teacher."""

    @property
    def model(self) -> Any:
        """The module whose weights it reads, so that it can be moved to where the student trains."""
        ...

    def head(self) -> Head:
        """Its head, as it was before training."""
        ...

    def trained_states(self, view: View) -> Tensor:
        """Hidden states [N, H] at the view's trained positions."""
        ...


@dataclass(frozen=True)
class FrozenCopy:
    """A second copy of the weights."""

    model: Any

    def head(self) -> Head:
        """The copy's own head."""
        return head_of(self.model)

    @torch.no_grad()
    def trained_states(self, view: View) -> Tensor:
        """Hidden states [N, H] of the copy."""
        return trained_states(self.model, view)


@dataclass(frozen=True)
class AdapterOff:
    """The student's own weights with its adapter switched off: no second copy in memory."""

    model: Any

    def head(self) -> Head:
        """The head before `modules_to_save` replaced it."""
        return head_of(self.model, adapted=False)

    @torch.no_grad()
    def trained_states(self, view: View) -> Tensor:
        """Hidden states [N, H] of the base weights; dropout is off while the teacher reads."""
        training = self.model.training
        self.model.eval()
        try:
            with self.model.disable_adapter():
                return trained_states(self.model, view)
        finally:
            self.model.train(training)


def freeze(model: Any) -> FrozenCopy:
    """A model that serves as teacher from now on."""
    return FrozenCopy(model.requires_grad_(False).eval())


def frozen_copy(model: Any) -> FrozenCopy:
    """A frozen copy of a model as it is now."""
    return freeze(copy.deepcopy(model))


def teacher_for(model: Any) -> Teacher:
    """The teacher that a model starts from: itself with the adapter off under peft, else a frozen copy."""
    return AdapterOff(model) if hasattr(model, "disable_adapter") else frozen_copy(model)
