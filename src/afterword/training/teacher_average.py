"""A teacher that follows the student: a running average of its weights. SDFT, Shenfeld et al. 2026, arXiv:2601.19897.

The average is kept in float32 whatever the teacher computes in: a hundredth of a step is less than bfloat16 can tell.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  (dicts of anything)
from torch import Tensor
from transformers import TrainerCallback

from afterword import models
from afterword.distributed import is_main_process
from afterword.errors import ConfigError

TEACHER = "teacher.safetensors"
"""In a checkpoint: the average."""


class TeacherAverage(TrainerCallback):
    """teacher ← (1 − a) · teacher + a · student after every optimizer step."""

    def __init__(self, share: float, teacher: models.FrozenCopy):
        self.share, self.teacher = share, teacher
        self.average: dict[str, Tensor] = {}
        self.resumed_from: Path | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start from the teacher as it is, or from the average that a checkpoint kept."""
        self.average = {name: p.detach().float().clone() for name, p in self.teacher.model.named_parameters()}
        if self.resumed_from:
            saved = load_file(self.resumed_from / TEACHER)
            self.average = {name: saved[name].to(tensor.device) for name, tensor in self.average.items()}
            self._teach()

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Follow the student by one step."""
        student = dict(model.named_parameters())
        for name, average in self.average.items():
            average.lerp_(student[name].detach().float(), self.share)
        self._teach()

    @torch.no_grad()
    def _teach(self) -> None:
        for name, parameter in self.teacher.model.named_parameters():
            parameter.copy_(self.average[name])

    def save(self, folder: Path, step: int) -> None:
        """Write the average into a checkpoint."""
        if is_main_process():
            save_file({name: tensor.contiguous() for name, tensor in self.average.items()}, folder / TEACHER)


def averaged(share: float | None, teacher: models.Teacher | None, why: str) -> TeacherAverage | None:
    """What has the teacher follow; None where nothing was asked for. ConfigError for one that cannot follow."""
    if not share:
        return None
    if not isinstance(teacher, models.FrozenCopy):
        problem = f"teacher_average: {share:g} needs a teacher of its own in memory, whose weights can follow ({why})"
        raise ConfigError(f"{problem}. Use teacher: copy without use_peft, or teacher_average: 0.")
    return TeacherAverage(share, teacher)
