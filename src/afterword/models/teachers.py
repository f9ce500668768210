"""Teachers: the model as it was given, frozen. Hidden states in eval mode and without gradient."""

import contextlib
import copy
import warnings
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afterword.distributed import device_type, is_sharded
from afterword.models.backbone import has_adapter, head_of, layer_states, only_reading, trained_states
from afterword.models.going_on import as_given
from afterword.models.shared_prompts import continues_cleanly
from afterword.objectives import Head
from afterword.types import InputRows, SharedRows


@dataclass(frozen=True)
class FrozenCopy:
    """A second copy of the weights. (Before a first step, the model itself serves as well.)"""

    model: Any

    def head(self) -> Head:
        """The copy's own head."""
        return head_of(self.model)

    def trained_states(self, *views: InputRows | SharedRows) -> Tensor:
        """Hidden states [N, H] of the copy at the views' trained positions."""
        with only_reading(self.model):
            return trained_states(self.model, *views)

    def layer_states(self, *views: InputRows | SharedRows) -> list[Tensor]:
        """The same of every layer."""
        with only_reading(self.model):
            return layer_states(self.model, *views)

    def placed(self, device: torch.device) -> "FrozenCopy":
        """The same where the student trains."""
        self.model.to(device)
        return self


@dataclass(frozen=True)
class AdapterOff:
    """The student's own weights with its adapter switched off, or as it was given: no second copy in memory."""

    model: Any

    def head(self) -> Head:
        """The head before `modules_to_save` replaced it, which an adapter that goes on has none of."""
        return head_of(self.model, adapted=False)

    def trained_states(self, *views: InputRows | SharedRows) -> Tensor:
        """Hidden states [N, H] of the model as it was given; dropout is off while the teacher reads."""
        with only_reading(self.model), as_given(self.model):
            return trained_states(self.model, *views)

    def layer_states(self, *views: InputRows | SharedRows) -> list[Tensor]:
        """The same of every layer."""
        with only_reading(self.model), as_given(self.model):
            return layer_states(self.model, *views)

    def placed(self, device: torch.device) -> "AdapterOff":
        """Where the student is, it is already."""
        self.model.to(device)
        return self


@dataclass(frozen=True)
class Offloaded:
    """A second copy whose weights are in the machine's memory, and on the device only while it reads."""

    model: Any
    kept: Head
    """Its head, which the loss reads after the weights are gone: a copy, on the device."""

    def head(self) -> Head:
        """The head, where the student is."""
        return self.kept

    def trained_states(self, *views: InputRows | SharedRows) -> Tensor:
        """Hidden states [N, H] of the copy, whose weights come once for all views."""
        with only_reading(self.model), self.on(views[0].input_ids.device):
            return trained_states(self.model, *views)

    def layer_states(self, *views: InputRows | SharedRows) -> list[Tensor]:
        """The same of every layer."""
        with only_reading(self.model), self.on(views[0].input_ids.device):
            return layer_states(self.model, *views)

    def placed(self, device: torch.device) -> "Offloaded":
        """The same with its head on the device."""
        return replace(self, kept=_moved(self.kept, device))

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Generator[None]:
        """All weights on a device. They are frozen, so nothing has to be carried back."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        home = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                tensor.data = tensor.data.to(device, non_blocking=True)
            yield
        finally:
            for tensor, data in zip(tensors, home, strict=True):
                tensor.data = data


@dataclass(frozen=True)
class HeadOnly:
    """What is left in memory of a teacher whose hidden states are cached."""

    kept: Head | None
    """Tensors of its own; None where the head is the student's, which may be taken apart for sharding yet."""
    student: Any = None

    def head(self) -> Head:
        """The head as the model was given."""
        return self.kept or head_of(self.student, adapted=False)


LiveTeacher = FrozenCopy | AdapterOff | Offloaded
"""What a training step asks for a head and hidden states."""
Teacher = LiveTeacher | HeadOnly


def freeze(model: Any) -> FrozenCopy:
    """A model that serves as teacher from now on."""
    return FrozenCopy(model.requires_grad_(False).eval())


def frozen_copy(model: Any) -> FrozenCopy:
    """A frozen copy of a model as it is now."""
    return freeze(copy.deepcopy(model))


def teacher_for(model: Any) -> LiveTeacher:
    """The teacher that a model starts from: itself with the adapter off under peft, else a frozen copy."""
    return AdapterOff(model) if has_adapter(model) else frozen_copy(model)


def untrained(model: Any) -> LiveTeacher:
    """The teacher that a model is until its first step: itself, with an adapter off if it has one."""
    return AdapterOff(model) if has_adapter(model) else FrozenCopy(model)


def offloaded(model: Any) -> FrozenCopy | Offloaded:
    """A model that serves as teacher from the machine's memory; without a GPU that is where it would be anyway."""
    teacher = freeze(model.to("cpu"))
    if device_type() == "cuda":
        return Offloaded(teacher.model, teacher.head())
    problem = "teacher: offload spares the memory of a GPU, and this machine has none"
    warnings.warn(f"{problem}, so the teacher is a copy as it is without.", stacklevel=2)
    return teacher


def reads_beginnings_once(teacher: LiveTeacher, device: torch.device) -> bool:
    """Whether what the texts of a teacher begin with alike can be read once: not where it is in shards."""
    if is_sharded(teacher.model):
        return False
    with teacher.on(device) if isinstance(teacher, Offloaded) else contextlib.nullcontext():
        return continues_cleanly(teacher.model)


def head_only(teacher: Teacher) -> HeadOnly:
    """What is left of a teacher that need not read any more. A head that is going to be trained is copied."""
    head = teacher.head()
    if isinstance(teacher, AdapterOff) and not head.weight.requires_grad:
        return HeadOnly(None, teacher.model)
    weight, bias = (
        tensor.detach().clone() if tensor is not None and tensor.requires_grad else tensor
        for tensor in (head.weight, head.bias)
    )
    assert weight is not None, "a head has a weight"
    return HeadOnly(replace(head, weight=weight, bias=bias))


def _moved(head: Head, device: torch.device) -> Head:
    bias = None if head.bias is None else head.bias.to(device)
    return replace(head, weight=head.weight.to(device), bias=bias)
