"""AdaptationTrainer: transformers.Trainer with our batches, our loss, one division, and saves that are whole.

The loss of an optimizer step is Σ weight · loss / Σ weight over all micro-batches, accumulation and processes, for
every term of the method, summed with the terms' factors. The denominators are counted once, before the first
backward; nothing else divides.
"""

import contextlib
import hashlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import PrinterCallback, TrainingArguments

from afterword import models
from afterword.data import Prepared, WindowSettings, content_hash
from afterword.data.batching import Packing, micro_batches, to_device
from afterword.data.mixture import streams
from afterword.distributed import device_type, gathered, is_zero3, whole
from afterword.errors import ConfigError, Diverged
from afterword.methods import DEFAULT_METHOD, Method, get_method
from afterword.objectives import (
    LOGITS_WORKSPACE_MIB,
    AdaptivePrediction,
    DeepDistillation,
    Head,
    Objective,
    Prediction,
    hidden_distance,
    hidden_losses,
    total,
    weighted_sum,
)
from afterword.training import steps
from afterword.training.arguments import check_step, declared_arguments, on_one_gpu, training_arguments
from afterword.training.checkpoints import WholeCheckpoints, last_complete_checkpoint
from afterword.training.held_out import HeldOut, held_out_documents, held_out_losses, held_out_of
from afterword.training.optimizers import warn_of_lost_updates
from afterword.training.per_source_losses import SourceSums, refuse_taken_names, warn_of_shared_line
from afterword.training.refusals import refuse_deep
from afterword.training.regularizers import Staying, WeightAverage, add_pull_to_start, trained_weights
from afterword.training.rollouts import Rollouts, refuse_rollouts
from afterword.training.sharding import in_lockstep, prepare_sharding, zero3_backward, zero3_gradient_norm
from afterword.training.sources import (
    MixtureSource,
    Source,
    as_windows,
    check_tokens,
    mixture_sources,
    special_tokens_for,
)
from afterword.training.teacher_average import averaged
from afterword.training.teacher_caches import Caching, CachingTeacher, Read
from afterword.training.written_documents import DocumentWriter
from afterword.types import Batch

_TINY = 1e-12


class AdaptationTrainer(WholeCheckpoints):
    """Teaches documents to a model by any registered method. Otherwise a Trainer like any other.

    `train_dataset` and `eval_dataset` are documents (a data set or list with a `text` column, or `Prepared`
    windows). `args` built by `training_arguments(method, …)` are taken as they are; in plain TrainingArguments
    the method's declaration replaces what was left at the Trainer's defaults.
    """

    loss_is_scaled_for_ga = True
    model: Any
    """Never None here."""
    eval_dataset: Any
    """A HeldOut, or None."""

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Any,
        processing_class: Any,
        eval_dataset: Any = None,
        method: Method | str = DEFAULT_METHOD,
        teacher: models.Teacher | None = None,
        window_settings: WindowSettings | None = None,
        mixture: Mapping[str, MixtureSource] | None = None,
        documents_per_step: int = 1,
        step_tokens: int | None = None,
        packing: Packing | None = None,
        logits_workspace_mib: float = LOGITS_WORKSPACE_MIB,
        staying: Staying | None = None,
        caching: Caching | None = None,
        **trainer_arguments: Any,
    ):
        self.method = get_method(method) if isinstance(method, str) else method
        mixture = mixture or {}
        if problem := self.method.problem_with(general=mixture):
            raise ConfigError(problem)
        self.terms = self.method.terms(general=mixture)
        args = declared_arguments(self.method, args or training_arguments(self.method, output_dir="runs/trainer"))
        check_step(args, documents_per_step, step_tokens)
        warn_of_lost_updates(model, args, trainer_arguments.get("optimizer_cls_and_kwargs"))
        models.check_head(model)
        settings, tokenizer = window_settings or _default_windows(model), processing_class
        self.sources, held_out = _read(
            model, tokenizer, self.method, settings, mixture, Path(str(args.output_dir)), train_dataset, eval_dataset
        )
        own = self.sources[0]
        warn_of_shared_line(own.names)
        check_tokens(model, processing_class, [*self.sources, *(held_out.sources if held_out else ())])
        general = streams(own.lengths, [(each.lengths, each.share) for each in self.sources if each.share], args.seed)
        self.plan = steps.StepPlan(own.lengths, documents_per_step, step_tokens, args.seed, general)
        self.packing, self.workspace_mib = packing or models.packing_for(model), logits_workspace_mib
        refuse_deep(self.method.name, self.terms, args, cached=caching is not None)
        self.caching, self.teacher = caching, self._teacher_of(model, teacher, caching)
        self.objectives, self.rollouts = [term.objective for term in self.terms], self._rollouts_of(args, settings)
        staying = staying or Staying()
        self.pull, self.start = staying.pull, _pulled_to(model, staying)
        self.step_counts, self.step_documents, self.step_started = Counter[str](), list[str](), time.perf_counter()
        self.source_sums = SourceSums(own.names, tuple(mixture), self.terms)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  (transformers gives it no types)
            model,
            on_one_gpu(args),
            processing_class=processing_class,
            train_dataset=self._examples_of(args.seed),
            eval_dataset=held_out,  # pyright: ignore[reportArgumentType]  (ours alone reads it)
            **trainer_arguments,
        )
        self.average = WeightAverage(staying.average, staying.average_steps) if staying.average else None
        prepare_sharding(self)
        self.remove_callback(PrinterCallback)
        self._place_teacher()
        self._add_averages()

    def _teacher_of(self, model: Any, given: models.Teacher | None, caching: Caching | None) -> models.Teacher | None:
        """What was given, or the model before the Trainer loads a checkpoint into it."""
        if given or not any(term.objective.needs_teacher for term in self.terms):
            return given
        return models.untrained(model) if caching else models.teacher_for(model)

    def _examples_of(self, seed: int) -> steps.Examples:
        rewritten = self.rollouts.rewritten if self.rollouts else None
        return steps.Examples(self.sources, self.terms, seed, rewritten=rewritten)

    def _rollouts_of(self, args: TrainingArguments, settings: WindowSettings) -> Rollouts | None:
        """What the student is going to write of the documents, where the method has it write."""
        view, own = self.method.view, self.sources[0]
        if (rewriting := view.rewriting) is None:
            return None
        refuse_rollouts(self.method.name, args, cached=self.caching is not None)
        folder = Path(str(args.output_dir))
        return Rollouts(own.windows, view, rewriting, self.plan, folder, args.seed, settings.max_length)

    def _place_teacher(self) -> None:
        """Where the student trains; of passages it reads once what they begin with alike, where its kind allows it."""
        if not isinstance(self.teacher, models.LiveTeacher):
            return
        self.teacher = self.teacher.placed(self.args.device)
        deep = any(isinstance(term.objective, DeepDistillation) for term in self.terms)
        if not deep and any(term.objective.needs_teacher and term.view.reads_passages for term in self.terms):
            shares = models.reads_beginnings_once(self.teacher, self.args.device)
            self.packing = replace(self.packing, shares_beginnings=shares)

    def _add_averages(self) -> None:
        """Of the student's weights, and of the teacher's where it follows the student."""
        follows = self.method.view.follows_student
        self.teacher_average = averaged(follows, self.teacher, f"method: {self.method.name}")
        for each in filter(None, (self.average, self.teacher_average)):
            self.add_callback(each)

    @property
    def windows(self) -> Prepared:
        """Of the documents."""
        return self.sources[0].windows

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        epochs, limit = self.args.num_train_epochs, self.args.max_steps
        return limit if limit > 0 else math.ceil(epochs * self.plan.steps_per_epoch)

    @property
    def content_sha256(self) -> str:
        """SHA-256 of everything that is read: what a resumed run must find unchanged."""
        hashes = [content_hash(each.windows) for each in self.sources]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def mixture_report(self) -> list[dict[str, Any]]:
        """What the run reads of the documents and of every source of general text, beside what was asked for."""
        realised = self.plan.realised(self.total_steps)
        return [each.report(read) for each, read in zip(self.sources, realised, strict=True)]

    # ---- data

    def get_train_dataloader(self) -> steps.StepLoader:
        """Steps of this process. Not given to accelerate, which would cut them again."""
        args = self.args
        sampler = steps.StepSampler(
            self.plan, args.world_size, args.process_index, args.gradient_accumulation_steps, terms=self._terms_of()
        )
        sampler.block_steps = self.rollouts.rewriting.steps if self.rollouts else None
        # Without workers the loader refuses their options.
        workers = args.dataloader_num_workers
        persistent, ahead = (
            (args.dataloader_persistent_workers, args.dataloader_prefetch_factor) if workers else (False, None)
        )
        return steps.build_loader(self.examples, sampler, self.packing, workers, persistent=persistent, ahead=ahead)

    @property
    def examples(self) -> steps.Examples:
        """What the run reads, by draw: the Trainer's `train_dataset`."""
        assert isinstance(self.train_dataset, steps.Examples), "made here"
        return self.train_dataset

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As the Trainer's; a share of the steps to warm up in is never all of them.

        A run of one step would be taken at rate 0.
        """
        if 0 < self.args.warmup_steps < 1 and self.args.get_warmup_steps(num_training_steps) >= num_training_steps:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def cache_teacher(self, console: Console | None = None) -> int:
        """Have what the teacher says of all that it reads in this run on the disk; then only its head stays in memory.

        `train` does it first; until then the teacher may be the student itself. Returns the tokens of all that it
        reads. Without `caching`, and a second time, nothing is done, and 0 returned.
        """
        if self.caching is None or not isinstance(self.teacher, models.LiveTeacher):
            return 0
        with self.autocast():
            cache, tokens = self.caching_teacher().cached(self.teacher_reads_in_all(), console)
        self.train_dataset, self.teacher = replace(self.examples, cache=cache), models.head_only(self.teacher)
        models.free_memory()
        return tokens

    def caching_teacher(self) -> CachingTeacher:
        """The teacher as it is cached, until it is."""
        assert self.caching, "asked for"
        assert isinstance(self.teacher, models.LiveTeacher), "not cached yet"
        return CachingTeacher(self.teacher, self.packing, self.args.device, self.caching)

    def teacher_reads_in_all(self) -> list[Read]:
        """Everything that the teacher reads in this run: of the documents, of general text, and of held-out text."""
        # Losses on a sample of what is read are those of epoch 0.
        sampled = (0, self.plan.windows(self.total_steps))
        reads = [Read(self.examples, (sampled, *self.plan.epochs(self.total_steps)))]
        if self.eval_dataset is not None:
            reads.append(Read(self._held_out_examples(self.eval_dataset), ((0, self.eval_dataset.windows()),)))
        return reads

    def _held_out_examples(self, held_out: HeldOut) -> steps.Examples:
        return steps.Examples(held_out.sources, self.terms, self.args.seed, self.examples.cache)

    def _terms_of(self) -> tuple[tuple[int, ...], ...]:
        """Of every source, which terms read a window of it."""
        return tuple(tuple(i for i, term in enumerate(self.terms) if term.reads(each.source)) for each in self.sources)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of a step, once the student has written what they are built of."""
        if self.rollouts:
            with self.autocast():
                self.rollouts.ready(self.state.global_step, self.model, self.processing_class)
        step: Any = super()  # The Trainer's own has no types.
        return step.get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[list[Batch]], device: torch.device) -> Tensor:
        # The Trainer asks so, before the first backward of a step.
        return self.count_weights(batch_samples)

    def count_weights(self, step: list[list[Batch]]) -> Tensor:
        """The one divisor, [terms]: the sum of weights of the whole optimizer step, over all processes."""
        batches = [batch for batches in step for batch in batches]
        mine = [sum(b.total_weight for b in batches if b.term == term) for term in range(len(self.terms))]
        self._look_at_the_step(batches)
        return self._over_processes(torch.tensor(mine, dtype=torch.float64, device=self.args.device))

    def _look_at_the_step(self, batches: Sequence[Batch]) -> None:
        """Objectives that follow from the whole step get the mean loss of each of its sequences first."""
        for number, term in enumerate(self.terms):
            if isinstance(term.objective, AdaptivePrediction):
                # What only keeps a process in step with the others is no part of the step.
                mine = [batch for batch in batches if batch.term == number and batch.total_weight]
                own = in_lockstep(mine, self.model)
                means = [mean for batch in own for mean in self._mean_losses(to_device(batch, self.args.device))]
                everyone = gathered(means)
                self.objectives[number] = term.objective.for_step(everyone) if everyone else term.objective

    def _mean_losses(self, batch: Batch) -> list[float]:
        """Of every sequence that the student reads, in nats, as it is now."""
        with models.only_reading(self.model), self.autocast():
            student = (models.trained_states(self.model, batch.student), models.head_of(self.model))
            losses = hidden_losses(Prediction(), student, None, batch.target_ids, workspace_mib=self.workspace_mib)
        sums = torch.bincount(batch.sequences, losses.double())
        return (sums / torch.bincount(batch.sequences)).cpu().numpy().tolist()

    def autocast(self) -> Any:
        """Products in bfloat16 where asked for. accelerate leaves that to DeepSpeed, whose engine has no loss."""
        checkpointed = models.is_checkpointed(self.model)
        return models.mixed_precision(self.args.device.type, enabled=self.args.bf16, checkpointed=checkpointed)

    def _over_processes(self, values: Tensor) -> Tensor:
        """Sum [n] over all processes."""
        if self.args.world_size == 1:
            return values
        return self.accelerator.gather(values[None].to(self.args.device)).sum(0)

    # ---- the step

    def training_step(  # pyright: ignore[reportIncompatibleMethodOverride]  (our loader's batches)
        self, model: Any, inputs: Sequence[Batch], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """All micro-batches of this process: forward, backward; gradients are synchronised at the last."""
        model.train()
        inputs = in_lockstep(inputs, self.model)
        total = torch.zeros((), device=self.args.device)
        for i, batch in enumerate(inputs):
            with contextlib.nullcontext() if i == len(inputs) - 1 else self.accelerator.no_sync(model):
                loss = self.compute_loss(model, batch, num_items_in_batch=num_items_in_batch)
                self._backward(model, loss, last=i == len(inputs) - 1)
            if not bool(torch.isfinite(loss.detach())):
                raise Diverged(self._non_finite("loss", batch.documents))
            total += loss.detach()
            self.step_counts.update(_counts(batch))
            self.step_documents.extend(batch.documents)
        if self.pull and self.accelerator.sync_gradients:
            add_pull_to_start(self.model, self.start, self.pull)
        return total

    def _backward(self, model: Any, loss: Tensor, *, last: bool) -> None:
        if is_zero3(self.model):
            zero3_backward(model, loss, last=last and self.accelerator.sync_gradients)
        else:
            self.accelerator.backward(loss)

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]  (our loader's batches)
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """Σ weight · loss of a micro-batch over the step's Σ weight (its own, where none is given), times its factor.

        `num_items_in_batch`: [terms], as `_get_num_items_in_batch` counts them.
        """
        batch = to_device(inputs, self.args.device)
        objective = self.objectives[batch.term]
        weighted, parts = self._weighted_sum(model, batch, objective)
        factor = self.terms[batch.term].weight
        divisor: Any = batch.total_weight
        if num_items_in_batch is not None:
            assert isinstance(num_items_in_batch, Tensor), "counted in _get_num_items_in_batch"
            # DDP takes the mean over processes; the divisor is already the whole step's. It is 0 where a process
            # has examples of no weight, and no other has any of the term.
            factor, divisor = factor * self.args.world_size, num_items_in_batch[batch.term].clamp(min=_TINY)
            self.source_sums.add(batch, parts)
        loss = (weighted * factor / divisor).float()
        return (loss, {"losses": total(objective, parts)}) if return_outputs else loss

    def _weighted_sum(self, model: Any, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
        """Σ weight · loss of a micro-batch, and the parts of its losses."""
        if isinstance(objective, DeepDistillation):
            return self._deep_sum(model, batch, objective)
        with self.autocast():
            states = models.trained_states_through(model, self.model, batch.student)
            teacher = self.teacher_reads(batch, objective)
        return self.weighted(objective, (states, models.head_of(self.model)), teacher, batch)

    def _deep_sum(self, model: Any, batch: Batch, objective: DeepDistillation) -> tuple[Tensor, Tensor]:
        """The same with the distance between the hidden states of all layers."""
        assert isinstance(self.teacher, models.LiveTeacher), "a cache has no other layers; refused before"
        with self.autocast():
            student = models.layer_states_through(model, self.model, batch.student)
            teacher = self.teacher.layer_states(*batch.teacher)
        sides = (student[-1], models.head_of(self.model)), (teacher[-1], self.teacher.head())
        weighted, parts = self.weighted(objective, *sides, batch)
        distance = hidden_distance(student, teacher)
        deep = objective.hidden_weight * (batch.weights * distance).sum()
        return weighted + deep, torch.cat([parts, distance.detach()[:, None].to(parts.dtype)], dim=1)

    def teacher_reads(self, batch: Batch, objective: Objective) -> tuple[Tensor, Head] | None:
        """Hidden states of the teacher at the trained positions, cached ones or read now, and its head.

        None where the objective needs no teacher.
        """
        if not objective.needs_teacher:
            return None
        if batch.teacher_rows is not None:
            assert self.teacher, "its head is left of it"
            return batch.teacher_rows, self.teacher.head()
        assert isinstance(self.teacher, models.LiveTeacher), "a method that needs a teacher has one"
        assert batch.teacher, "and its views give the teacher something to read"
        return self.teacher.trained_states(*batch.teacher), self.teacher.head()

    def weighted(
        self, objective: Objective, student: tuple[Tensor, Head], teacher: tuple[Tensor, Head] | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Σ weight · loss of hidden states at the trained positions of a batch, and the parts of the losses.

        Of an objective that compares all layers, what follows from these: the divergence.
        """
        if isinstance(objective, DeepDistillation):
            objective = objective.on_logits
        return weighted_sum(
            objective,
            student,
            teacher,
            batch.target_ids,
            batch.weights,
            workspace_mib=self.workspace_mib,
            rounds_gradients=self.args.bf16,
        )

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Stops before the optimizer step where the gradient is not finite."""
        sharded = is_zero3(self.model)
        if sharded:
            norm: Any = zero3_gradient_norm(self.model)
        else:
            norm = whole(super()._get_grad_norm(model, grad_norm))  # pyright: ignore[reportUnknownMemberType]  (transformers gives it no types)
        if norm is not None and not bool(torch.isfinite(torch.as_tensor(norm)).all()):
            raise Diverged(self._non_finite("gradient", tuple(self.step_documents)))
        self.step_documents.clear()
        if sharded:
            # What accelerate has for its optimizer does nothing.
            model.step()
        return norm

    def _non_finite(self, what: str, documents: Sequence[str]) -> str:
        named = ", ".join(documents[:5]) + (f" and {len(documents) - 5} more" if len(documents) > 5 else "")
        problem = f"The {what} is not finite at step {self.state.global_step + 1}, with the documents {named}."
        remedy = f"Lower learning_rate (now {self.args.learning_rate:g}), or look at these documents."
        return f"{problem} Stopped before the optimizer step; the last checkpoint is intact. {remedy}"

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """All parameters where the method decays all; the Trainer's choice (no norms, no biases) otherwise."""
        if self.method.decay_all_parameters:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def floating_point_ops(self, inputs: Any) -> int:
        """6 · parameters · tokens for the student and 2 for the teacher, heads and attention left out."""
        weighted = sum(6 * b.student.tokens + 2 * sum(view.tokens for view in b.teacher) for b in inputs)
        return self.model.num_parameters(exclude_embeddings=True) * weighted

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's row, with the tokens and documents of this process since the last one."""
        if "loss" in logs:
            seconds = max(time.perf_counter() - self.step_started, 1e-9)
            tokens = self.step_counts["student_tokens"] + self.step_counts["teacher_tokens"]
            logs.update(self.step_counts, tokens_per_second=tokens / seconds)
            logs.update(self.source_sums.take(self._over_processes))
            if device_type() == "cuda":
                logs["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self.step_counts.clear()
            self.step_started = time.perf_counter()
        super().log(logs, start_time)

    # ---- evaluation during training

    @torch.no_grad()
    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """The method's loss on held-out text, its terms' parts by source, and the documents' plain loss in nats.

        Of documents and of what is held out of general text, each by the terms that read it. Draws are those of epoch
        0, so that evaluations compare. `eval_dataset`: other documents, prepared.
        """
        given = self.eval_dataset if eval_dataset is None else eval_dataset
        held_out = held_out_documents(given, self.sources[0].special) if isinstance(given, Prepared) else given
        assert isinstance(held_out, HeldOut), "evaluation text is prepared with the trainer"
        if isinstance(self.teacher, models.HeadOnly) and held_out is not self.eval_dataset:
            raise ConfigError("eval_dataset: the teacher is cached for that of the trainer alone. Give none here.")
        started = time.perf_counter()
        self.model.eval()
        mine = in_lockstep(self._eval_batches(held_out), self.model)
        batches = (to_device(batch, self.args.device) for batch in mine)
        weighted_sum = partial(self._weighted_sum, self.model)
        metrics = held_out_losses(batches, held_out, self.terms, weighted_sum, self._over_processes, metric_key_prefix)
        metrics[f"{metric_key_prefix}_seconds"] = time.perf_counter() - started
        self.step_started += metrics[f"{metric_key_prefix}_seconds"]
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _eval_batches(self, held_out: HeldOut) -> Iterator[Batch]:
        """Of this process, a window at a time."""
        examples = self._held_out_examples(held_out)
        mine = itertools.islice(held_out.draws(self.terms), self.args.process_index, None, self.args.world_size)
        for draw in mine:
            yield from micro_batches([examples[draw]], self.packing)

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """As the Trainer's; only whole checkpoints are resumed from. True: the newest whole one, or the start."""
        # Before a checkpoint is loaded: the teacher may be the student as it was given.
        self.cache_teacher()
        self.step_started = time.perf_counter()
        if self.rollouts:
            starts = resume_from_checkpoint is True and not last_complete_checkpoint(Path(str(self.args.output_dir)))
            self.rollouts.begin(resumed=bool(resume_from_checkpoint) and not starts)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)


def _pulled_to(model: Any, staying: Staying) -> dict[str, Tensor]:
    if not staying.pull:
        return {}
    return trained_weights(model) if staying.toward is None else dict(staying.toward)


def _default_windows(model: Any) -> WindowSettings:
    return WindowSettings(max_length=models.context_length(models.causal_lm(model).config))


def _read(
    model: Any,
    tokenizer: Any,
    method: Method,
    window_settings: WindowSettings,
    mixture: Mapping[str, MixtureSource],
    run: Path,
    documents: Any,
    held_out: Any,
) -> tuple[tuple[Source, ...], HeldOut | None]:
    """What a run reads: its documents and every source of the mixture; and what losses are evaluated on."""
    view, special, work = method.view, special_tokens_for(tokenizer, method, mixture), run / steps.WORK_FOLDER
    writer = DocumentWriter(load=lambda: model, folder=run)
    windows = as_windows(documents, work / "train", view, tokenizer, window_settings, writer=writer)
    own = Source("documents", windows, special, eos=view.needs_eos)
    refuse_taken_names(own.names, tuple(mixture))
    sources = (own, *mixture_sources(mixture, work, view, tokenizer, window_settings))
    return sources, held_out_of(held_out, mixture, work, special, view, tokenizer, window_settings)


def _counts(batch: Batch) -> dict[str, int]:
    """What was read and trained in a micro-batch."""
    positions = len(batch.target_ids)
    taught = bool(batch.teacher) or batch.teacher_rows is not None
    read = {"student_tokens": batch.student.tokens, "teacher_tokens": sum(view.tokens for view in batch.teacher)}
    read["padding_tokens"] = sum(view.padding for view in (batch.student, *batch.teacher))
    trained = {"trained_positions": positions, "teacher_positions": positions if taught else 0}
    return {**read, **trained, "documents": len(batch.documents)}
