"""A Trainer whose checkpoints are whole or not there, and that resumes from no other."""

from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from afterword import models
from afterword.errors import CheckpointError
from afterword.training.checkpoints import last_complete_checkpoint, require_complete
from afterword.training.regularizers import WeightAverage

_OF_SHARDS = {"fsdp": "pytorch_model_fsdp*", "deepspeed": "global_step*"}
"""What only the checkpoints of a run have that was sharded so."""


class WholeCheckpoints(Trainer):
    """Saves beside a checkpoint's place and renames; with a running average of the weights in it, if there is one."""

    average: WeightAverage | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As the Trainer's; only whole checkpoints are resumed from. True: the newest whole one, or the start."""
        resume: Any = resume_from_checkpoint or None
        if resume is True:
            resume = last_complete_checkpoint(Path(str(self.args.output_dir)))
        elif resume:
            resume = require_complete(Path(resume))
        if resume:
            _refuse_other_kind(resume, self._sharded_by())
        if self.average:
            self.average.resumed_from = resume or None
        return super().train(resume_from_checkpoint=str(resume) if resume else None, **options)

    def _run_epoch(self, **epoch: Any) -> None:
        """An epoch; no step of it where the checkpoint is of the last step. The Trainer would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**epoch)

    def _sharded_by(self) -> str:
        return "fsdp" if self.is_fsdp_enabled else "deepspeed" if self.is_deepspeed_enabled else ""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, written beside its place and renamed to it when it is whole."""
        self.store_flos()
        run = Path(self._get_output_dir(trial=trial))
        target = run / f"checkpoint-{self.state.global_step}"
        staging = target.with_name(target.name + models.STAGING_SUFFIX)
        if self.args.should_save:
            models.staging_folder(target)
        self.accelerator.wait_for_everyone()
        self.save_model(str(staging), _internal_call=True)
        if not self.args.save_only_model:
            for save in (self._save_optimizer_and_scheduler, self._save_scaler, self._save_rng_state):
                save(str(staging))
        best = run / f"checkpoint-{self.state.best_global_step}"
        if best == target or best.is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.average:
            self.average.save(staging, self.state.global_step)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._save_state(staging)
            models.publish(staging, target)
            if self.args.push_to_hub:
                self._push_from_checkpoint(str(target))
            kept = {"best_model_checkpoint": self.state.best_model_checkpoint, "use_mtime": True}
            rotate_checkpoints(str(run), self.args.save_total_limit, **kept)
        self.accelerator.wait_for_everyone()

    def _save_state(self, folder: Path) -> None:
        parts = (*self.callback_handler.callbacks, self.control)
        states = {type(part).__name__: part.state() for part in parts if isinstance(part, ExportableState)}
        self.state.stateful_callbacks.update(states)  # pyright: ignore
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
