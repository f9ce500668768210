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

from afterword.batching import Packing
from afterword.config import AdaptSettings
from afterword.corpus import Corpus, CorpusOptions
from afterword.errors import AfterwordError, ConfigError
from afterword.methods import Method, get_method
from afterword.models import (
    LORA_LEARNING_RATE,
    LoraSettings,
    Teacher,
    context_length,
    freeze,
    load_config,
    load_model,
    load_tokenizer,
    save_result,
    saved_dtype,
    weights_fingerprint,
    with_lora,
)
from afterword.training.arguments import training_arguments
from afterword.training.callbacks import MetricsWriter, RichProgress
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
    seconds: float
    """Of this call; 0 for a run that had been finished before."""
    resumed_from: int | None
    """Step of the checkpoint that was resumed from."""
    first_loss_nats: float | None
    last_loss_nats: float | None
    """Mean over the first and the last tenth of the steps."""
    already_complete: bool = False


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything a run is made of, loaded and checked, before its first step."""

    settings: AdaptSettings
    method: Method
    model: Any
    tokenizer: Any
    teacher: Teacher | None
    reading: Reading
    corpus: Corpus
    windows: Prepared
    eval_windows: Prepared | None
    packing: Packing
    result_dtype: torch.dtype

    def identity(self) -> Identity:
        """The content that makes this run this run."""
        return Identity(weights_fingerprint(self.model), content_hash(self.windows))

    def trainer(self, output_dir: Path, callbacks: Sequence[TrainerCallback] = ()) -> AdaptationTrainer:
        """The trainer over these parts."""
        arguments = arguments_of(self.settings, self.method, output_dir)
        with _refused_by_trainer(self.settings):
            return AdaptationTrainer(
                self.model,
                arguments,
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
        except Exception:
            # Nothing was trained: leave no trace of a run that could not begin.
            if began_here and is_main_process():
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        if folder.is_finished():
            return RunResult(folder.path, folder.state()["steps"], 0.0, None, None, None, already_complete=True)
        return _train(parts, folder, identity, command, console or Console(stderr=True))


def _train(parts: Parts, folder: RunFolder, identity: Identity, command: str, console: Console) -> RunResult:
    started = time.perf_counter()
    progress = RichProgress(console)
    trainer = parts.trainer(folder.path, [MetricsWriter(folder.metrics), progress])
    data = {**parts.corpus.to_json(), **parts.windows.to_json(), "steps": total_steps(trainer)}
    checkpoint = folder.checkpoint_to_resume() if is_main_process() else None
    if is_main_process() and not folder.exists():
        folder.begin(parts.settings, identity, data, command or " ".join(sys.argv))
    checkpoint = main_process_first(folder.checkpoint_to_resume) if not is_main_process() else checkpoint
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.stop()
    if trainer.is_world_process_zero():
        save_result(
            trainer.accelerator.unwrap_model(trainer.model),
            parts.tokenizer,
            folder.path,
            dtype=parts.result_dtype,
            merge=parts.settings.merge_adapter,
        )
        seconds = time.perf_counter() - started
        folder.write_state("complete", identity, steps=trainer.state.global_step, seconds=seconds)
        shutil.rmtree(folder.path / WORK_FOLDER, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    if parts.settings.push_to_hub:
        trainer.push_to_hub()
    return _result(trainer, folder, checkpoint, time.perf_counter() - started)


def load_parts(settings: AdaptSettings, documents: Any, run: Path) -> Parts:
    """Load and check everything that a run needs. Cheap checks come before expensive ones."""
    method = method_of(settings)
    name = settings.model_name_or_path
    config, tokenizer = load_config(name), load_tokenizer(name)
    reading = _reading(settings, config)
    source = documents if documents is not None else list(settings.documents)
    corpus, windows, eval_windows = main_process_first(
        lambda: _prepared(settings, source, run, method, tokenizer, reading)
    )
    precision = resolved_precision(settings)
    load_dtype = torch.bfloat16 if _loads_half(settings, precision) else torch.float32
    model = load_model(name, dtype=load_dtype, attn_implementation=settings.attn_implementation)
    _refuse_foreign_tokenizer(tokenizer, model, name)
    layout = "padded" if settings.packing == "off" else checked_layout(model)
    teacher = None
    if settings.use_peft:
        model = with_lora(model, _lora(settings), settings.seed)
    elif method.objective.needs_teacher:
        teacher = freeze(load_model(name, dtype=_teacher_dtype(settings, load_dtype), **_attention(settings)))
    return Parts(
        settings=settings,
        method=method,
        model=model,
        tokenizer=tokenizer,
        teacher=teacher,
        reading=reading,
        corpus=corpus,
        windows=windows,
        eval_windows=eval_windows,
        packing=Packing(max(settings.micro_batch_tokens, reading.max_length), layout),
        result_dtype=saved_dtype(config),
    )


def method_of(settings: AdaptSettings) -> Method:
    """The method with the settings that were given for it."""
    return get_method(settings.method).configured(**settings.method_settings())


def arguments_of(settings: AdaptSettings, method: Method, output_dir: Path) -> TrainingArguments:
    """TrainingArguments of a run. What TrainingArguments itself refuses is a ConfigError."""
    values = settings.training_settings()
    if settings.use_peft:
        values.setdefault("learning_rate", LORA_LEARNING_RATE)
    mixed = resolved_precision(settings) == "bf16_mixed"
    merged = {**values, **settings.trainer, "bf16": mixed, "output_dir": str(output_dir)}
    with _refused_by_trainer(settings):
        return training_arguments(method, **merged)


@contextlib.contextmanager
def _refused_by_trainer(settings: AdaptSettings) -> Iterator[None]:
    """What the Trainer does not take of the settings becomes a ConfigError, under the setting that it quotes."""
    try:
        yield
    except AfterwordError:
        raise
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and "install" not in text:
            raise  # No memory, for example: not a setting.
        own = {"lr_scheduler_type": settings.lr_scheduler_type, "report_to": " ".join(settings.report_to)}
        given = {**own, **{f"trainer.{name}": value for name, value in settings.trainer.items()}}
        quoted = [name for name, value in given.items() if value and str(value).lower() in text.lower()]
        raise ConfigError(f"{quoted[0] if quoted else 'trainer'}: {text}") from error


def total_steps(trainer: AdaptationTrainer) -> int:
    """Optimizer steps of the whole run."""
    if trainer.args.max_steps > 0:
        return trainer.args.max_steps
    return int(-(-trainer.args.num_train_epochs * trainer.plan.steps_per_epoch // 1))


def resolved_precision(settings: AdaptSettings) -> str:
    """`auto` decided for this machine."""
    if settings.precision != "auto":
        return settings.precision
    usable = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16_mixed" if usable else "float32"


def _prepared(
    settings: AdaptSettings, source: Any, run: Path, method: Method, tokenizer: Any, reading: Reading
) -> tuple[Corpus, Prepared, Prepared | None]:
    options = CorpusOptions(
        **{field.name: getattr(settings, field.name) for field in dataclasses.fields(CorpusOptions)}
    )
    if not source:
        raise ConfigError("documents: missing, and there is no default. Give files, folders, globs or a data-set id.")
    corpus, windows = prepare_documents(source, run, "train", method, tokenizer, reading, options=options)
    held_out = None
    if settings.eval_documents:
        sources = list(settings.eval_documents)
        held_out = prepare_documents(sources, run, "eval", method, tokenizer, reading, options=options)[1]
    return corpus, windows, held_out


def _reading(settings: AdaptSettings, config: Any) -> Reading:
    limit = getattr(config, "max_position_embeddings", None)
    if settings.max_length and limit and settings.max_length > limit:
        raise ConfigError(f"max_length: {settings.max_length} is more than the model's {limit} positions. Lower it.")
    return Reading(
        max_length=context_length(config, settings.max_length),
        window_overlap=settings.window_overlap,
        language=settings.language,
    )


def _loads_half(settings: AdaptSettings, precision: str) -> bool:
    # Under LoRA the base weights are frozen, so nothing is lost by keeping them in half precision; the adapters
    # themselves are float32 (peft's autocast_adapter_dtype).
    return precision == "bf16" or (precision == "bf16_mixed" and settings.use_peft)


def _teacher_dtype(settings: AdaptSettings, student: torch.dtype) -> torch.dtype:
    if settings.teacher_precision != "auto":
        return {"float32": torch.float32, "bf16": torch.bfloat16}[settings.teacher_precision]
    return torch.bfloat16 if torch.cuda.is_available() else student


def _attention(settings: AdaptSettings) -> dict[str, Any]:
    return {"attn_implementation": settings.attn_implementation}


def _lora(settings: AdaptSettings) -> LoraSettings:
    modules = settings.lora_target_modules
    return LoraSettings(
        r=settings.lora_r,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        target_modules=modules[0] if modules == ("all-linear",) else modules,
        modules_to_save=settings.lora_modules_to_save,
        bias=settings.lora_bias,
        use_dora=settings.use_dora,
    )


def _refuse_foreign_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > vocabulary:
        raise ConfigError(
            f"model_name_or_path: the tokenizer of {name!r} has {len(tokenizer)} tokens and the model only {vocabulary}. "
            "They do not belong together; give the model's own tokenizer."
        )


def _result(trainer: AdaptationTrainer, folder: RunFolder, checkpoint: Path | None, seconds: float) -> RunResult:
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    tenth = max(1, len(losses) // 10)
    return RunResult(
        path=folder.path,
        steps=trainer.state.global_step,
        seconds=seconds,
        resumed_from=int(checkpoint.name.split("-")[1]) if checkpoint else None,
        first_loss_nats=sum(losses[:tenth]) / tenth if losses else None,
        last_loss_nats=sum(losses[-tenth:]) / tenth if losses else None,
    )


def adapt(
    model: str,
    documents: Any,
    *,
    method: str = "disc",
    output_dir: str | Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> RunResult:
    """Teach documents to a model and write the result to a run folder. The Python form of `afterword adapt`.

    `model` is a folder or hub id; `documents` paths, rows, texts or a data set (see `read_corpus`); `settings`
    are those of the command line, by the same names. Without `output_dir`, a new temporary folder is used.
    """
    from afterword.config import read_settings

    named = documents if isinstance(documents, (str, Path)) else None
    raw = {
        **settings,
        "model_name_or_path": str(model),
        "documents": [str(named)] if named else [],
        "method": method,
        "output_dir": str(output_dir or tempfile.mkdtemp(prefix="afterword-")),
    }
    return run_adaptation(read_settings(raw), documents, command="afterword.adapt(…)", console=console)


def quiet_libraries() -> None:
    """Only warnings that a person can act on: progress bars and notices of the libraries are off."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", module="torch|accelerate|transformers")
