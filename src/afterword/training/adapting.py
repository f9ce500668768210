"""One run from settings to a finished folder: the main job, in the order in which it happens."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainingArguments

from afterword import models
from afterword.batching import Packing
from afterword.config import AdaptSettings, read_settings
from afterword.corpus import Corpus, CorpusOptions
from afterword.errors import AfterwordError, ConfigError
from afterword.methods import DEFAULT_METHOD, Method, get_method
from afterword.training.arguments import training_arguments
from afterword.training.callbacks import MetricsWriter, RichProgress
from afterword.training.checkpoints import checkpoint_step
from afterword.training.failures import explained
from afterword.training.preparing import WORK_FOLDER, prepare_documents
from afterword.training.processes import is_main_process, main_process_first
from afterword.training.run_folder import Identity, RunFolder
from afterword.training.trainer import AdaptationTrainer, checked_layout
from afterword.views import Prepared, Reading, content_hash


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    path: Path
    steps: int
    seconds: float = 0.0
    """Of this call; 0 for a run that had been finished before."""
    resumed_from: int | None = None
    """Step of the checkpoint that was resumed from."""
    losses: tuple[float, float] | None = None
    """Mean training loss over the first and the last tenth of the steps, nats."""
    already_complete: bool = False


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, loaded and checked, before its first step."""

    settings: AdaptSettings
    method: Method
    model: Any
    tokenizer: Any
    teacher: models.Teacher | None
    corpus: Corpus
    windows: Prepared
    eval_windows: Prepared | None
    packing: Packing
    result_dtype: torch.dtype

    def identity(self) -> Identity:
        """The content that makes this run this run."""
        return Identity(models.weights_fingerprint(self.model), content_hash(self.windows))

    def trainer(self, output_dir: Path, callbacks: Sequence[TrainerCallback] = ()) -> AdaptationTrainer:
        """The trainer over these parts."""
        return AdaptationTrainer(
            self.model,
            arguments_of(self.settings, self.method, output_dir),
            train_dataset=self.windows,
            eval_dataset=self.eval_windows,
            processing_class=self.tokenizer,
            method=self.method,
            teacher=self.teacher,
            documents_per_step=self.settings.documents_per_step,
            step_tokens=self.settings.step_tokens,
            packing=self.packing,
            callbacks=list(callbacks),
        )


def adapt(model: str | Path, documents: Any, *, method: str = DEFAULT_METHOD, **settings: Any) -> RunResult:
    """Teach documents to a model and write the result to a run folder. The Python form of `afterword adapt`.

    `model` is a folder or hub id; `documents` are paths, rows, texts or a data set (see `read_corpus`); `settings`
    those of the command line, by the same names. Without `output_dir`, a new temporary folder is used.
    """
    named = [str(documents)] if isinstance(documents, (str, Path)) else []
    raw: dict[str, Any] = {"output_dir": tempfile.mkdtemp(prefix="afterword-"), **settings, "method": method}
    raw.update(model_name_or_path=str(model), documents=named, output_dir=str(raw["output_dir"]))
    return run_adaptation(read_settings(raw), documents, command="afterword.adapt(…)")


def run_adaptation(
    settings: AdaptSettings, documents: Any = None, *, command: str = "", console: Console | None = None
) -> RunResult:
    """Adapt a model as the settings say. `documents` replaces `settings.documents` when given from Python.

    An existing folder of the same run is resumed from its last whole checkpoint; a finished one is left as it is.
    """
    if not settings.output_dir:
        raise ConfigError("output_dir: missing, and it has no default. Give the run folder with -o.")
    folder = RunFolder(Path(settings.output_dir))
    arguments_of(settings, method_of(settings), folder.path)
    folder.refuse_other_settings(settings)
    began_here = not folder.path.exists()
    with explained(folder.path):
        try:
            parts = load_parts(settings, documents, folder.path)
            identity = parts.identity()
            folder.refuse_other_content(identity)
        except (AfterwordError, KeyboardInterrupt):
            # Nothing was trained: leave no trace of a run that could not begin.
            if began_here and is_main_process():
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        if folder.is_finished():
            return RunResult(folder.path, folder.state()["steps"], already_complete=True)
        return _train(parts, folder, identity, command or " ".join(sys.argv), console or Console(stderr=True))


def _train(parts: Parts, folder: RunFolder, identity: Identity, command: str, console: Console) -> RunResult:
    started = time.perf_counter()
    progress = RichProgress(console)
    with _refused_by_trainer(parts.settings):
        trainer = parts.trainer(folder.path, [MetricsWriter(folder.metrics), progress])
    data = {**parts.corpus.to_json(), **parts.windows.to_json(), "steps": total_steps(trainer)}
    checkpoint = main_process_first(lambda: folder.begin_or_resume(parts.settings, identity, data, command))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.stop()
    seconds = time.perf_counter() - started
    if trainer.is_world_process_zero():
        adapted = trainer.accelerator.unwrap_model(trainer.model)
        merge = parts.settings.merge_adapter
        models.save_result(adapted, parts.tokenizer, folder.path, dtype=parts.result_dtype, merge=merge)
        folder.write_state("complete", identity, steps=trainer.state.global_step, seconds=seconds)
        shutil.rmtree(folder.path / WORK_FOLDER, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if parts.settings.push_to_hub:
        trainer.push_to_hub()
    resumed_from = checkpoint_step(checkpoint) if checkpoint else None
    return RunResult(folder.path, trainer.state.global_step, seconds, resumed_from, _first_and_last(trainer))


def load_parts(settings: AdaptSettings, documents: Any, run: Path) -> Parts:
    """Load and check everything that a run needs. Cheap checks come before expensive ones."""
    method, name = method_of(settings), settings.model_name_or_path
    config, tokenizer = models.load_config(name), models.load_tokenizer(name)
    reading = _reading(settings, config)
    sources = documents if documents is not None else list(settings.documents)
    read = main_process_first(lambda: _prepared(settings, sources, run, method, tokenizer, reading))
    precision = resolved_precision(settings)
    # Under LoRA the base is frozen, so half precision loses nothing; peft keeps the adapters in float32.
    half = precision == "bf16" or (precision == "bf16_mixed" and settings.use_peft)
    dtype, attention = torch.bfloat16 if half else torch.float32, settings.attn_implementation
    model = models.load_model(name, dtype=dtype, attn_implementation=attention)
    models.refuse_foreign_tokenizer(tokenizer, model, name)
    layout = "padded" if settings.packing == "off" else checked_layout(model)
    packing = Packing(max(settings.micro_batch_tokens, reading.max_length), layout)
    teacher = None
    if settings.use_peft:
        model = models.with_lora(model, _lora(settings), settings.seed)
    elif method.objective.needs_teacher:
        teacher_dtype = _teacher_dtype(settings, dtype)
        teacher = models.freeze(models.load_model(name, dtype=teacher_dtype, attn_implementation=attention))
    return Parts(settings, method, model, tokenizer, teacher, *read, packing, models.saved_dtype(config))


def method_of(settings: AdaptSettings) -> Method:
    """The method with the settings that were given for it."""
    return get_method(settings.method).configured(**settings.method_settings())


def arguments_of(settings: AdaptSettings, method: Method, output_dir: Path) -> TrainingArguments:
    """TrainingArguments of a run. What TrainingArguments itself refuses is a ConfigError."""
    rate = {"learning_rate": models.LORA_LEARNING_RATE} if settings.use_peft else {}
    decided = {"bf16": resolved_precision(settings) == "bf16_mixed", "output_dir": str(output_dir)}
    with _refused_by_trainer(settings):
        return training_arguments(method, **{**rate, **settings.training_settings(), **settings.trainer, **decided})


@contextlib.contextmanager
def _refused_by_trainer(settings: AdaptSettings) -> Iterator[None]:
    """What transformers does not take of the settings becomes a ConfigError, under the setting that it quotes."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, AfterwordError) or (isinstance(error, RuntimeError) and "install" not in text):
            raise  # Said already, or no setting: no memory, for example.
        own = {"lr_scheduler_type": settings.lr_scheduler_type, "report_to": " ".join(settings.report_to)}
        given = {**own, **{f"trainer.{name}": value for name, value in settings.trainer.items()}}
        quoted = [name for name, value in given.items() if value and str(value).lower() in text.lower()]
        raise ConfigError(f"{quoted[0] if quoted else 'trainer'}: {text}") from error


def total_steps(trainer: AdaptationTrainer) -> int:
    """Optimizer steps of the whole run."""
    epochs = trainer.args.num_train_epochs
    return trainer.args.max_steps if trainer.args.max_steps > 0 else int(-(-epochs * trainer.plan.steps_per_epoch // 1))


def resolved_precision(settings: AdaptSettings) -> str:
    """`auto` decided for this machine."""
    usable = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.precision if settings.precision != "auto" else "bf16_mixed" if usable else "float32"


def _prepared(
    settings: AdaptSettings, sources: Any, run: Path, method: Method, tokenizer: Any, reading: Reading
) -> tuple[Corpus, Prepared, Prepared | None]:
    options = CorpusOptions(
        **{field.name: getattr(settings, field.name) for field in dataclasses.fields(CorpusOptions)}
    )
    if isinstance(sources, list) and not sources:
        raise ConfigError("documents: missing, and there is no default. Give files, folders, globs or a data-set id.")
    common = (run, method, tokenizer, reading)
    corpus, windows = prepare_documents(sources, "train", *common, options=options)
    if not settings.eval_documents:
        return corpus, windows, None
    return corpus, windows, prepare_documents(list(settings.eval_documents), "eval", *common, options=options)[1]


def _reading(settings: AdaptSettings, config: Any) -> Reading:
    limit = getattr(config, "max_position_embeddings", None)
    if settings.max_length and limit and settings.max_length > limit:
        raise ConfigError(f"max_length: {settings.max_length} is more than the model's {limit} positions. Lower it.")
    length = models.context_length(config, settings.max_length)
    return Reading(max_length=length, window_overlap=settings.window_overlap, language=settings.language)


def _teacher_dtype(settings: AdaptSettings, student: torch.dtype) -> torch.dtype:
    automatic = torch.bfloat16 if torch.cuda.is_available() else student
    return {"auto": automatic, "float32": torch.float32, "bf16": torch.bfloat16}[settings.teacher_precision]


def _lora(settings: AdaptSettings) -> models.LoraSettings:
    names = ("r", "alpha", "dropout", "modules_to_save", "bias")
    given = {name: getattr(settings, f"lora_{name}") for name in names}
    modules = settings.lora_target_modules
    targets = modules[0] if modules == ("all-linear",) else modules
    return models.LoraSettings(**given, target_modules=targets, use_dora=settings.use_dora)


def _first_and_last(trainer: AdaptationTrainer) -> tuple[float, float] | None:
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    tenth = max(1, len(losses) // 10)
    return (sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth) if losses else None


def quiet_libraries() -> None:
    """Only warnings that a person can act on: progress bars and notices of the libraries are off."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module="torch|accelerate|transformers")
