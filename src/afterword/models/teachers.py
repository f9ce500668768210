"""Teachers: the model as it was given, frozen. Hidden states in eval mode and without gradient."""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from afterword.models.backbone import head_of, only_reading, trained_states
from afterword.objectives import Head
from afterword.types import View


@dataclass(frozen=True)
class FrozenCopy:
    """A second copy of the weights."""

    model: Any

    def head(self) -> Head:
        """The copy's own head."""
        return head_of(self.model)

    def trained_states(self, view: View) -> Tensor:
        """Hidden states [N, H] of the copy."""
        with only_reading(self.model):
            return trained_states(self.model, view)


@dataclass(frozen=True)
class AdapterOff:
    """The student's own weights with its adapter switched off: no second copy in memory."""

    model: Any

    def head(self) -> Head:
        """The head before `modules_to_save` replaced it."""
        return head_of(self.model, adapted=False)

    def trained_states(self, view: View) -> Tensor:
        """Hidden states [N, H] of the base weights; dropout is off while the teacher reads."""
        with only_reading(self.model), self.model.disable_adapter():
            return trained_states(self.model, view)


Teacher = FrozenCopy | AdapterOff
"""What a training step asks for a head and hidden states; `model` can be moved to where the student trains."""


def freeze(model: Any) -> FrozenCopy:
    """A model that serves as teacher from now on."""
    return FrozenCopy(model.requires_grad_(False).eval())


def frozen_copy(model: Any) -> FrozenCopy:
    """A frozen copy of a model as it is now."""
    return freeze(copy.deepcopy(model))


def teacher_for(model: Any) -> Teacher:
    """The teacher that a model starts from: itself with the adapter off under peft, else a frozen copy."""
    return AdapterOff(model) if hasattr(model, "disable_adapter") else frozen_copy(model)
