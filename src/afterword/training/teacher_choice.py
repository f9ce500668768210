"""Which teacher the settings ask for, and where what it says is kept."""

from pathlib import Path

import torch

from afterword import models
from afterword.errors import ConfigError
from afterword.methods import Method
from afterword.settings.adapt import AdaptSettings
from afterword.training.steps import WORK_FOLDER
from afterword.training.teacher_caches import Caching


def refuse_teacher(settings: AdaptSettings) -> None:
    """ConfigError, with every problem, where `teacher` and what belongs to it do not fit the run."""
    kind, problems = settings.teacher, list[str]()
    if kind == "adapter_off" and not settings.use_peft:
        problems.append("teacher: 'adapter_off' needs an adapter, and there is none. Add use_peft, or use cached.")
    if settings.teacher_cache and kind != "cached":
        problems.append(f"teacher_cache: is read where teacher is cached, not {kind}. Leave it out.")
    if settings.teacher_precision in models.BITS and kind not in (None, "copy"):
        why = f"{settings.teacher_precision} makes a copy in memory smaller, and teacher: {kind} keeps none there"
        problems.append(f"teacher_precision: {why}. Use auto.")
    if problems:
        raise ConfigError(problems)


def teacher_of(settings: AdaptSettings, method: Method, student: torch.dtype) -> models.LiveTeacher | None:
    """The teacher that is loaded beside a student of this precision.

    None: there is none, or it is what the student is before its first step, with its adapter off if it has one.
    """
    below = settings.use_peft and not settings.reference
    kind = settings.teacher or ("adapter_off" if below else "copy")
    dtype = student if settings.use_peft else teacher_dtype(settings, student)
    itself = kind == "adapter_off" or (kind == "cached" and dtype == student and not settings.reference)
    if itself or not method.needs_teacher(general=settings.sources()):
        return None
    attention = settings.attn_implementation
    twin = models.load_model(settings.held_to, dtype=dtype, attn_implementation=attention)
    if kind == "offload":
        return models.offloaded(twin)
    return models.freeze(models.quantised(twin, settings.teacher_precision))


def teacher_dtype(settings: AdaptSettings, student: torch.dtype) -> torch.dtype:
    """The precision that the teacher's weights are loaded in, beside a student that is trained whole."""
    automatic = torch.bfloat16 if models.has_bfloat16() else student
    named = {"float32": torch.float32, "bf16": torch.bfloat16, "int4": torch.bfloat16}
    return named.get(settings.teacher_precision, automatic)


def caching_of(settings: AdaptSettings, run: Path, shared: Path | None = None) -> Caching | None:
    """Where a run's teacher is cached: in `shared`, by content; in `teacher_cache`; or in the run's own folder."""
    if settings.teacher != "cached":
        return None
    own = Path(settings.teacher_cache).expanduser() if settings.teacher_cache else run / WORK_FOLDER / "teacher"
    return Caching(folder=shared or own, by_content=shared is not None)
