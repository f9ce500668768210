"""Checkpoints that count, which are only whole ones: how they are written, found and resumed from.

And what is said of them when a run is ended from outside.
"""

import contextlib
import errno
import re
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from afterword import models
from afterword.errors import CheckpointError, TrainingError, is_disk_full, is_out_of_memory
from afterword.models import is_complete
from afterword.training.regularizers import WeightAverage
from afterword.training.teacher_average import TeacherAverage

_NAME = re.compile(r"checkpoint-\d+")
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE, errno.EIO}
"""Of a folder that was removed, or may not be written any more, while a run was in it."""
_OF_THE_SYSTEM = re.compile(r"\(os error \d+\)")


class Interrupted(TrainingError):  # noqa: N818  the name says what happened, as KeyboardInterrupt does
    """Stopped by the person at the keyboard."""

    exit_code = 130


class Terminated(Interrupted):
    """Ended from outside by SIGTERM, as schedulers and containers do, with a checkpoint of the running step."""

    exit_code = 143


def checkpoint_step(folder: Path) -> int:
    """The optimizer step that a checkpoint folder is named after."""
    return int(folder.name.removeprefix("checkpoint-"))


def last_complete_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run whose every file is there and undamaged, or None."""
    folders = [path for path in run.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return next(filter(is_complete, sorted(folders, key=checkpoint_step, reverse=True)), None)


def remove_checkpoints(run: Path) -> None:
    """Remove every checkpoint of a run, whole or not: its result is there."""
    for path in run.glob("checkpoint-*"):
        if path.is_dir() and _NAME.match(path.name):
            shutil.rmtree(path, ignore_errors=True)


def require_complete(folder: Path) -> Path:
    """The folder, if it is a whole checkpoint; CheckpointError otherwise. Never a resume without optimizer state."""
    if is_complete(folder):
        return folder
    problem = (
        "is not whole: a file of it, or its manifest, is missing or changed" if folder.is_dir() else "is no folder"
    )
    raise CheckpointError(
        f"resume_from_checkpoint: {str(folder)!r} {problem}. Give a whole checkpoint-N folder of a run."
    )


@contextlib.contextmanager
def explained(run: Path) -> Generator[None, None, None]:
    """Turn interrupt, full disk and lack of memory into a TrainingError that says what is left and what to do."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, OSError, RuntimeError, SafetensorError) as error:
        explanation = None if isinstance(error, TrainingError) else _explanation(error, run)
        if explanation is None:
            raise
        raise explanation from error
    except Exception as error:
        # Tokenizers raise nothing narrower; a file that the system did not take is told as any other.
        if not _OF_THE_SYSTEM.search(str(error)) or (explanation := _explanation(error, run)) is None:
            raise
        raise explanation from error


def _explanation(error: BaseException, run: Path) -> TrainingError | None:
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"Interrupted. {_kept(run)}")
    if is_out_of_memory(error):
        remedy = "Lower micro_batch_tokens (changes no gradient) or max_length; use gradient_checkpointing or use_peft."
        return TrainingError(f"Out of memory. {_kept(run)} {remedy}")
    if not run.is_dir() and isinstance(error, OSError | RuntimeError | SafetensorError):
        return TrainingError(f"output_dir: {str(run)!r} was removed while the run wrote there. Start it again.")
    if getattr(error, "errno", None) in _GONE and str(getattr(error, "filename", "")).startswith(str(run)):
        assert isinstance(error, OSError), "others name no file"
        problem = f"output_dir: {error.filename!r} cannot be written ({error.strerror})"
        return TrainingError(f"{problem}. {_kept(run)} Give access to it.")
    if is_disk_full(error):
        problem = f"output_dir: the disk of {str(run)!r} is full or does not take the file."
        return TrainingError(f"{problem} {_kept(run)} Free some space, or lower save_total_limit.")
    return None


def _kept(run: Path) -> str:
    if checkpoint := last_complete_checkpoint(run):
        return f"{checkpoint.name} is intact; the same command resumes from it."
    return "No checkpoint had been written yet; the same command starts again."


_OF_SHARDS = {"fsdp": "pytorch_model_fsdp*", "deepspeed": "global_step*"}
"""What only the checkpoints of a run have that was sharded so."""


class WholeCheckpoints(Trainer):
    """Saves beside a checkpoint's place and renames; with a running average of the weights in it, if there is one."""

    average: WeightAverage | None = None
    teacher_average: TeacherAverage | None = None
    # Of the Trainer's own: their properties come without types.
    args: Any
    accelerator: Any
    control: Any
    callback_handler: Any

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]  (the rest of its arguments goes through)
        self, resume_from_checkpoint: str | bool | None = None, **options: Any
    ) -> Any:
        """As the Trainer's; only whole checkpoints are resumed from. True: the newest whole one, or the start."""
        if resume_from_checkpoint is True:
            resume = last_complete_checkpoint(Path(str(self.args.output_dir)))
        else:
            resume = require_complete(Path(resume_from_checkpoint)) if resume_from_checkpoint else None
        if resume:
            _refuse_other_kind(resume, self._sharded_by())
        for each in filter(None, (self.average, self.teacher_average)):
            each.resumed_from = resume
        checkpoint = str(resume) if resume else None
        return super().train(resume_from_checkpoint=checkpoint, **options)  # pyright: ignore[reportUnknownMemberType]  (transformers gives it no types)

    def _run_epoch(self, **epoch: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (named ones alone)
        """An epoch; no step of it where the checkpoint is of the last step. The Trainer would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**epoch)  # pyright: ignore[reportUnknownMemberType]  (transformers gives it no types)

    def _sharded_by(self) -> str:
        return "fsdp" if self.is_fsdp_enabled else "deepspeed" if self.is_deepspeed_enabled else ""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, written beside its place and renamed to it when it is whole."""
        self.store_flos()
        run = Path(self._get_output_dir(trial=trial))  # pyright: ignore[reportUnknownMemberType]  (transformers gives it no types)
        target = run / f"checkpoint-{self.state.global_step}"
        staging = target.with_name(target.name + models.STAGING_SUFFIX)
        if self.args.should_save:
            models.staging_folder(target)
        self.accelerator.wait_for_everyone()
        self.save_model(str(staging), _internal_call=True)
        if not self.args.save_only_model:
            for save in (self._save_optimizer_and_scheduler, self._save_scaler, self._save_rng_state):
                save(str(staging))
        found = run / f"checkpoint-{self.state.best_global_step}"
        if found == target or found.is_dir():
            self.state.best_model_checkpoint = str(found)
        for each in filter(None, (self.average, self.teacher_average)):
            each.save(staging, self.state.global_step)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._save_state(staging)
            models.publish(staging, target)
            if self.args.push_to_hub:
                self._push_from_checkpoint(str(target))
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(run), self.args.save_total_limit, best_model_checkpoint=best, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _save_state(self, folder: Path) -> None:
        parts = (*self.callback_handler.callbacks, self.control)
        states: dict[str, Any] = {
            type(part).__name__: part.state()  # pyright: ignore[reportUnknownMemberType]  (a dict of anything)
            for part in parts
            if isinstance(part, ExportableState)
        }
        kept: Any = self.state.stateful_callbacks
        kept.update(states)
        self.state.save_to_json(str(folder / "trainer_state.json"))


def _refuse_other_kind(checkpoint: Path, now: str) -> None:
    """CheckpointError where a run would resume from the checkpoint of one that was sharded in another way, or not."""
    was = next((kind for kind, files in _OF_SHARDS.items() if any(checkpoint.glob(files))), "")
    if was == now:
        return
    made = f"is of a run with {was}" if was else "has its optimizer whole"
    problem = f"resume_from_checkpoint: {str(checkpoint)!r} {made}, and cannot be resumed from "
    problem += f"with {now}" if now else "without"
    raise CheckpointError(f"{problem}. Give the settings and the launcher of that run, or another output_dir.")
