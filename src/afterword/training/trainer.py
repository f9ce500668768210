"""AdaptationTrainer: transformers.Trainer with our batches, our loss, one division, and saves that are whole.

The loss of an optimizer step is Σ weight · loss / Σ weight over all micro-batches, accumulation and
processes. The denominator is counted once, before the first backward; nothing else divides.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from afterword.batching import Packing, micro_batches, to_device
from afterword.errors import CheckpointError, ConfigError, TrainingError
from afterword.methods import DEFAULT_METHOD, Method, get_method
from afterword.models import (
    Teacher,
    check_head,
    head_of,
    packs_cleanly,
    publish,
    refuse_unsafe_adapters,
    staging_folder,
    teacher_for,
    trained_states_through,
)
from afterword.objectives import Objective, Prediction, hidden_losses
from afterword.training.arguments import declared_arguments, training_arguments
from afterword.training.checkpoints import last_complete_checkpoint, require_complete
from afterword.training.loader import Examples, StepLoader, build_loader
from afterword.training.preparing import as_prepared
from afterword.training.steps import Draw, StepPlan, StepSampler
from afterword.types import Batch
from afterword.views import Prepared, Reading, special_tokens

_EVAL_WINDOWS = 8
"""Windows whose examples are held at once while evaluating."""


class AdaptationTrainer(Trainer):
    """Teaches documents to a model by any registered method. Otherwise a Trainer like any other.

    `train_dataset` and `eval_dataset` are documents (a data set or list with a `text` column, or `Prepared`
    windows). `args` built by `training_arguments(method, …)` are taken as they are; in plain TrainingArguments
    the method's declaration replaces what was left at the Trainer's defaults.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any,
        processing_class: Any,
        eval_dataset: Any = None,
        method: Method | str = DEFAULT_METHOD,
        teacher: Teacher | None = None,
        reading: Reading | None = None,
        documents_per_step: int = 1,
        step_tokens: int | None = None,
        packing: Packing | None = None,
        **trainer_arguments: Any,
    ):
        self.method = get_method(method) if isinstance(method, str) else method
        if hasattr(model, "peft_config"):
            refuse_unsafe_adapters(model)
        args = args or training_arguments(self.method, output_dir="runs/trainer")
        args = declared_arguments(self.method, args)
        _check_step(args, documents_per_step, step_tokens)
        _warn_of_lost_updates(model, args.learning_rate)
        self.special = special_tokens(processing_class, _field(self.method, "bos"), _field(self.method, "join"))
        if self.method.view.needs_eos and self.special.eos_id is None:
            raise CheckpointError(
                f"tokenizer: the method {self.method.name!r} ends every document with EOS, and this tokenizer has none. "
                "Set tokenizer.eos_token and save it with the model."
            )
        prepare = {"method": self.method, "tokenizer": processing_class, "model": model, "reading": reading}
        self.windows: Prepared = as_prepared(train_dataset, Path(args.output_dir), "train", **prepare)
        if eval_dataset is not None:
            eval_dataset = as_prepared(eval_dataset, Path(args.output_dir), "eval", **prepare)
        self.plan = StepPlan(self.windows.lengths, documents_per_step, step_tokens, args.seed)
        check_head(model)
        self.packing = packing or Packing(micro_batch_tokens=8192, layout=checked_layout(model))
        # Before the Trainer loads a checkpoint into the student: the teacher is the model as it was given.
        self.teacher = teacher or (teacher_for(model) if self.method.objective.needs_teacher else None)
        self.step_counts: Counter[str] = Counter()
        self.step_documents: list[str] = []
        self.step_started = time.perf_counter()
        super().__init__(
            model=model,
            args=args,
            train_dataset=self._examples(self.windows),
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **trainer_arguments,
        )
        self.remove_callback(PrinterCallback)
        if self.teacher:
            self.teacher.to(self.args.device)

    def _examples(self, windows: Prepared) -> Examples:
        return Examples(windows, self.method, self.special, self.plan.seed)

    # ---- data

    def get_train_dataloader(self) -> StepLoader:
        """Steps of this process. Not given to accelerate, which would cut them again."""
        sampler = StepSampler(
            self.plan,
            processes=self.args.world_size,
            process=self.args.process_index,
            accumulation=self.args.gradient_accumulation_steps,
        )
        workers = self.args.dataloader_num_workers
        assert isinstance(self.train_dataset, Examples)
        return build_loader(
            self.train_dataset,
            sampler,
            self.packing,
            num_workers=workers,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            persistent_workers=self.args.dataloader_persistent_workers,
        )

    def _get_num_items_in_batch(self, batch_samples: list[list[Batch]], device: torch.device) -> Tensor:
        """The one divisor: the sum of weights of the whole optimizer step, over all processes."""
        mine = sum(batch.total_weight for batches in batch_samples for batch in batches)
        total = torch.tensor(mine, dtype=torch.float64, device=device)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total.reshape(1)).sum()
        return total

    # ---- the step

    def training_step(
        self, model: Any, inputs: Sequence[Batch], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """All micro-batches of this process: forward, backward; gradients are synchronised at the last."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for i, batch in enumerate(inputs):
            last = i == len(inputs) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                self.accelerator.backward(loss)
            if not bool(torch.isfinite(loss.detach())):
                raise TrainingError(self._non_finite("loss", batch.documents))
            total += loss.detach()
            self._count(batch)
        return total

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """Σ weight · loss of a micro-batch over the step's Σ weight (its own, where none is given)."""
        batch = to_device(inputs, self.args.device)
        losses = self._losses(model, batch, self.method.objective)
        divisor = batch.total_weight if num_items_in_batch is None else num_items_in_batch
        # DDP takes the mean over processes; the divisor is already the whole step's.
        scale = self.args.world_size if num_items_in_batch is not None else 1
        loss = (batch.weights * losses).sum() * scale / divisor
        loss = loss.float()
        return (loss, {"losses": losses}) if return_outputs else loss

    def _losses(self, model: Any, batch: Batch, objective: Objective) -> Tensor:
        with self.accelerator.autocast():
            student = (trained_states_through(model, self.model, batch.student), head_of(self.model))
            teacher = None
            if objective.needs_teacher:
                assert self.teacher is not None and batch.teacher is not None
                teacher = (self.teacher.trained_states(batch.teacher), self.teacher.head())
        return hidden_losses(objective, student, teacher, batch.target_ids)

    def _count(self, batch: Batch) -> None:
        self.step_counts["student_tokens"] += batch.student.tokens
        self.step_counts["teacher_tokens"] += batch.teacher.tokens if batch.teacher else 0
        self.step_counts["documents"] += len(batch.documents)
        self.step_documents.extend(batch.documents)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Stops before the optimizer step where the gradient is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not bool(torch.isfinite(torch.as_tensor(norm)).all()):
            raise TrainingError(self._non_finite("gradient", tuple(self.step_documents)))
        self.step_documents.clear()
        return norm

    def _non_finite(self, what: str, documents: Sequence[str]) -> str:
        named = ", ".join(documents[:5]) + (f" and {len(documents) - 5} more" if len(documents) > 5 else "")
        return (
            f"The {what} is not finite at step {self.state.global_step + 1}, with the documents {named}. Stopped before "
            f"the optimizer step; the last checkpoint is intact. Lower learning_rate (now {self.args.learning_rate:g}), or "
            "look at these documents."
        )

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """All parameters where the method decays all; the Trainer's choice (no norms, no biases) otherwise."""
        if self.method.decay_all_parameters:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def floating_point_ops(self, inputs: Any) -> int:
        """6 · parameters · tokens for the student and 2 for the teacher, heads and attention left out."""
        parameters = self.model.num_parameters(exclude_embeddings=True)
        student = sum(batch.student.tokens for batch in inputs)
        teacher = sum(batch.teacher.tokens for batch in inputs if batch.teacher)
        return parameters * (6 * student + 2 * teacher)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's row, with the tokens and documents of this process since the last one."""
        if "loss" in logs:
            seconds = max(time.perf_counter() - self.step_started, 1e-9)
            tokens = self.step_counts["student_tokens"] + self.step_counts["teacher_tokens"]
            logs.update(self.step_counts, tokens_per_second=tokens / seconds)
            if torch.cuda.is_available():
                logs["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self.step_counts.clear()
            self.step_started = time.perf_counter()
        super().log(logs, start_time)

    # ---- evaluation during training

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The method's loss, and the plain loss in nats of the same targets as the student reads them.

        Draws are those of epoch 0, so that evaluations compare.
        """
        windows = self.eval_dataset if eval_dataset is None else eval_dataset
        assert isinstance(windows, Prepared), "evaluation documents are prepared with the trainer"
        started = time.perf_counter()
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        for batch in self._eval_batches(windows):
            batch = to_device(batch, self.args.device)
            for i, objective in enumerate((self.method.objective, Prediction())):
                sums[i] += (batch.weights * self._losses(self.model, batch, objective)).sum()
            sums[2] += batch.total_weight
        if self.args.world_size > 1:
            sums = self.accelerator.gather(sums.reshape(1, 3)).sum(0)
        loss, nll = (sums[:2] / sums[2]).tolist()
        seconds = time.perf_counter() - started
        self.step_started += seconds
        names = ("loss", "nll_nats", "seconds")
        metrics = {f"{metric_key_prefix}_{n}": v for n, v in zip(names, (loss, nll, seconds), strict=True)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _eval_batches(self, windows: Prepared) -> Any:
        examples = self._examples(windows)
        mine = range(self.args.process_index, len(windows), self.args.world_size)
        for start in range(0, len(mine), _EVAL_WINDOWS):
            group = mine[start : start + _EVAL_WINDOWS]
            yield from micro_batches([examples[Draw(i, 0)] for i in group], self.packing)

    # ---- saving and resuming

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As the Trainer's; only whole checkpoints are resumed from. True: the newest whole one, or the start."""
        resume: str | None = None
        if resume_from_checkpoint is True:
            found = last_complete_checkpoint(Path(self.args.output_dir))
            resume = str(found) if found else None
        elif resume_from_checkpoint:
            resume = str(require_complete(Path(resume_from_checkpoint)))
        self.step_started = time.perf_counter()
        return super().train(resume_from_checkpoint=resume, **options)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The Trainer's checkpoint, written beside its place and renamed to it when it is whole."""
        self.store_flos()
        run = Path(self._get_output_dir(trial=trial))
        target = run / f"checkpoint-{self.state.global_step}"
        staging = target.with_name(target.name + ".partial")
        if self.args.should_save:
            staging = staging_folder(target)
        self.accelerator.wait_for_everyone()
        self.save_model(str(staging), _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(str(staging))
            self._save_scaler(str(staging))
            self._save_rng_state(str(staging))
        self._note_best(run)
        if self.args.should_save:
            self._save_state(staging)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            publish(staging, target)
            if self.args.push_to_hub:
                self._push_from_checkpoint(str(target))
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(run), self.args.save_total_limit, best_model_checkpoint=best, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _note_best(self, run: Path) -> None:
        step = self.state.best_global_step
        if step and (step == self.state.global_step or (run / f"checkpoint-{step}").is_dir()):
            self.state.best_model_checkpoint = str(run / f"checkpoint-{step}")

    def _save_state(self, folder: Path) -> None:
        exportable = [c for c in (*self.callback_handler.callbacks, self.control) if isinstance(c, ExportableState)]
        for callback in exportable:
            self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / "trainer_state.json"))


def checked_layout(model: Any) -> str:
    """`packed` where this model keeps packed texts apart; otherwise `padded`, said aloud."""
    if packs_cleanly(model):
        return "packed"
    warnings.warn(
        f"{type(model).__name__} reads across the border of packed texts, so every sequence gets a row of its own "
        "(slower, same result).",
        stacklevel=3,
    )
    return "padded"


def _field(method: Method, name: str) -> Any:
    return getattr(method.view, name)


def _check_step(args: TrainingArguments, documents_per_step: int, step_tokens: int | None) -> None:
    if step_tokens is not None:
        return
    slots = args.world_size * args.gradient_accumulation_steps
    if documents_per_step < args.world_size:
        raise ConfigError(
            f"documents_per_step: {documents_per_step} is fewer than the {args.world_size} processes, so some would train on "
            f"nothing. Use at least {args.world_size}, or fewer processes."
        )
    if documents_per_step < slots:
        raise ConfigError(
            f"gradient_accumulation_steps: {args.gradient_accumulation_steps} parts on {args.world_size} processes need at "
            f"least {slots} documents a step, and documents_per_step is {documents_per_step}. Lower it: a step is cut to fit "
            "memory by micro_batch_tokens anyway."
        )


def _warn_of_lost_updates(model: Any, learning_rate: float) -> None:
    half = {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
    if half:
        warnings.warn(
            f"Trained weights are in {', '.join(str(dtype) for dtype in half)}: at learning rate {learning_rate:g} most "
            "updates are lost to rounding. Load the model in float32 and train with precision=bf16_mixed.",
            stacklevel=3,
        )
