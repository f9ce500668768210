"""One run from settings to a finished folder: the main job, in the order in which it happens."""

import contextlib
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from transformers import TrainingArguments

from afterword import models
from afterword.corpus import Corpus, CorpusOptions, read_corpus, refuse_missing
from afterword.data import Prepared, WindowSettings, WrittenDocuments
from afterword.data.batching import Packing
from afterword.data.mixture import SourceShare
from afterword.distributed import is_main_process, main_process_first
from afterword.errors import AfterwordError, ConfigError
from afterword.methods import Method
from afterword.models.own_text import OWN_SAMPLES_FILE, write_own_text
from afterword.objectives import LOGITS_WORKSPACE_MIB
from afterword.settings.adapt import AdaptSettings
from afterword.settings.mixture import SourceSettings
from afterword.training.arguments import training_arguments
from afterword.training.callbacks import MetricsWriter, RichProgress, StopAtSigterm
from afterword.training.checkpoints import Terminated, checkpoint_step, explained, remove_checkpoints
from afterword.training.finish import finish, measure_before
from afterword.training.optimizers import optimizer_of, try_optimizer
from afterword.training.reference import reference_fingerprint, reference_weights, refuse_other_tokens
from afterword.training.regularizers import Staying
from afterword.training.rollouts import refuse_rollouts
from afterword.training.run_folder import Identity, RunFolder
from afterword.training.sharding import refuse_before_loading
from afterword.training.sources import MixtureSource, as_windows
from afterword.training.steps import WORK_FOLDER
from afterword.training.student import base_model, chain_of, dtype_of, of_adapter, refuse_other_adapter, with_adapter
from afterword.training.teacher_choice import caching_of, refuse_teacher, teacher_of
from afterword.training.teacher_quality import in_words, teacher_error
from afterword.training.trainer import AdaptationTrainer
from afterword.training.written_documents import DocumentWriter, Foreseen, refuse_generator, writer_of

_OWN_SEED = 7919
"""Of the model's own samples that are replayed: not those that drift is measured on, and the same for all seeds."""
_NO_DOCUMENTS = "documents: missing, and there is no default. Give files, folders, globs or a data-set id."


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
    aligned: Path | None = None
    """Folder of the alignment that followed, where one did."""
    hub_model_id: str | None = None
    """Where the folder is to be pushed, where that was asked for."""


class Watch(Protocol):
    """What looks at a run from outside."""

    def begins(self, trainer: AdaptationTrainer, step: int) -> None:
        """Before the first step that is taken now, which follows `step`."""
        ...

    def ends(self, trainer: AdaptationTrainer) -> None:
        """After the last step; what the trainer's model is when it returns is saved."""
        ...


def run_adaptation(
    settings: AdaptSettings,
    documents: Any = None,
    *,
    command: str = "",
    console: Console | None = None,
    teacher_caches: Path | None = None,
    asked: AdaptSettings | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Adapt a model as the settings say. `documents` replaces `settings.documents` when given from Python.

    A teacher that is cached is so in `teacher_caches`, where it is given, for all runs that are given the same.
    `asked` is what a person set, where `settings` has more: what was chosen for them. `watch` sees the trainer before
    its first step and after its last.

    An existing folder of the same run is resumed from its last whole checkpoint; a finished one is left as it is.
    """
    asked = asked or settings
    if not settings.output_dir:
        raise ConfigError("output_dir: missing, and it has no default. Give the run folder with -o.")
    refuse_before_loading(settings.trainer)
    folder = RunFolder(Path(settings.output_dir))
    arguments_of(settings, method_of(settings), folder.path)
    folder.refuse_other_settings(asked)
    if settings.precision == "auto" and folder.is_of_before():
        settings = settings.model_copy(update={"precision": models.unmeasured_precision()})
    settings = folder.used(settings) or used_settings(settings)
    began_here = not folder.path.exists()
    with explained(folder.path):
        try:
            trainer, data = load_trainer(settings, documents, folder.path, teacher_caches)
            identity = _identity(trainer, settings)
            folder.refuse_other_content(identity)
            finished = folder.is_finished()
        except (AfterwordError, KeyboardInterrupt):
            # Nothing was trained: leave no trace of a run that could not begin.
            folder.tidy(began_here=began_here)
            raise
        if finished:
            folder.tidy(began_here=False)
            return RunResult(folder.path, folder.state()["steps"], already_complete=True)
        console = console or Console(stderr=True)
        if once := _cache_teacher(trainer, folder, console, began_here=began_here):
            data = {**data, "teacher_read_once": once}
        command = command or " ".join(sys.argv)
        checkpoint = main_process_first(lambda: folder.begin_or_resume(asked, settings, identity, data, command))
        if is_main_process():
            _say(data, console)
        result = _trained_and_saved(trainer, settings, folder, checkpoint, console, watch)
        if is_main_process():
            folder.write_state("complete", identity, steps=result.steps, seconds=result.seconds)
            folder.tidy(began_here=False)
            if not asked.keeps_checkpoints:
                remove_checkpoints(folder.path)
        trainer.accelerator.wait_for_everyone()
    return result


def _trained_and_saved(
    trainer: AdaptationTrainer,
    settings: AdaptSettings,
    folder: RunFolder,
    checkpoint: Path | None,
    console: Console,
    watch: Watch | None,
) -> RunResult:
    """Train from the checkpoint or the start, and write the model, in the precision that keeps what was trained."""
    measure = measure_before(trainer, settings)
    if watch:
        watch.begins(trainer, checkpoint_step(checkpoint) if checkpoint else 0)
    result = _train(trainer, folder, checkpoint, console)
    if watch:
        watch.ends(trainer)
    if saved := finish(trainer, folder, settings, measure, partial(_fresh_model, settings)):
        folder.add_to_data("saved", saved)
        console.print(saved["sentence"], highlight=False, markup=False, soft_wrap=True)
    return replace(result, hub_model_id=trainer.hub_model_id if settings.push_to_hub else None)


def _fresh_model(settings: AdaptSettings) -> Any:
    """The model as the run began with it, for the weights of one that is sharded."""
    return with_adapter(base_model(settings, models.load_tokenizer(settings.model_name_or_path)), settings)


def _identity(trainer: AdaptationTrainer, settings: AdaptSettings) -> Identity:
    # An adapter's own configuration is settings, which are compared by name.
    configuration = models.configuration_sha256(trainer.model, adapted=False)
    held_to = reference_fingerprint(settings)
    return Identity(models.weights_fingerprint(trainer.model), trainer.content_sha256, configuration, held_to)


def _say(data: dict[str, Any], console: Console) -> None:
    """What a person should know before the first step."""
    said = [WrittenDocuments(**data["prepared_by_view"]).in_words()] if "prepared_by_view" in data else []
    said += [data["adapter"]["note"]] if "adapter" in data else []
    said += [in_words(data["teacher"])] if "teacher" in data else []
    said += [row["note"] for row in data.get("mixture", ()) if "note" in row]
    said += data["not_read"]
    said += [f"{row['source']}: {each}" for row in data.get("mixture", ()) for each in row.get("not_read", ())]
    for each in said:
        console.print(each, highlight=False, markup=False, soft_wrap=True)


def _cache_teacher(
    trainer: AdaptationTrainer, folder: RunFolder, console: Console, *, began_here: bool
) -> dict[str, int]:
    """What a teacher that is cached reads for this run before its first step; nothing where none is cached."""
    try:
        tokens = trainer.cache_teacher(console)
    except AfterwordError:
        # Not from an interrupt: what was read by then is continued by the same command.
        folder.tidy(began_here=began_here)
        raise
    return {"tokens": tokens} if tokens else {}


def _train(trainer: AdaptationTrainer, folder: RunFolder, checkpoint: Path | None, console: Console) -> RunResult:
    started, progress, stop = time.perf_counter(), RichProgress(console), StopAtSigterm()
    for callback in (MetricsWriter(folder.metrics), progress, stop):
        trainer.add_callback(callback)
    try:
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.stop()
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        saved = f"checkpoint-{trainer.state.global_step} is saved"
        raise Terminated(f"Ended by SIGTERM after step {trainer.state.global_step}. {saved}; the same command resumes.")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    tenth = max(1, len(losses) // 10)
    first_and_last = (sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth) if losses else None
    resumed_from = checkpoint_step(checkpoint) if checkpoint else None
    seconds = time.perf_counter() - started
    return RunResult(folder.path, trainer.state.global_step, seconds, resumed_from, first_and_last)


def load_trainer(
    settings: AdaptSettings,
    documents: Any,
    run: Path,
    teacher_caches: Path | None = None,
    *,
    writing: Foreseen | None = None,
) -> tuple[AdaptationTrainer, dict[str, Any]]:
    """Load and check everything that a run needs, cheap checks first; and what data.json will say of it.

    Where the method's view writes, it does so now, and what it used is kept in the output folder; with `writing`, what
    it would write is counted there instead.
    """
    method, name = method_of(settings), settings.model_name_or_path
    _refuse_before_reading(settings, documents)
    caching = caching_of(settings, run, teacher_caches)
    config, tokenizer = models.load_config(name), models.load_tokenizer(name)
    work, window_settings = run / WORK_FOLDER, _window_settings(settings, config)

    def windows_of(given: Any, place: Path, writer: DocumentWriter | Foreseen | None = None) -> tuple[Corpus, Prepared]:
        """Documents of the run, read and cut."""
        corpus = _read(given, place, settings)
        return corpus, as_windows(corpus, place, method.view, tokenizer, window_settings, writer=writer)

    given = documents if documents is not None else list(settings.documents)
    corpus, windows = windows_of(given, work / "train", writing or writer_of(settings, run))
    held_out = windows_of(list(settings.eval_documents), work / "eval") if settings.eval_documents else None
    refuse_before_loading(settings.trainer)
    model = base_model(settings, tokenizer)
    packing = _packing(settings, model, window_settings.max_length)
    model = with_adapter(model, settings)
    teacher = teacher_of(settings, method, dtype_of(settings))
    mixture = _mixture(settings, work, chat=bool(tokenizer.chat_template))
    args = arguments_of(settings, method, run)
    optimizer = optimizer_of(settings, model, args)
    with _refused_by_trainer(settings):
        trainer = AdaptationTrainer(
            model,
            args,
            train_dataset=windows,
            eval_dataset=held_out[1] if held_out else None,
            processing_class=tokenizer,
            method=method,
            teacher=teacher,
            mixture=mixture,
            documents_per_step=settings.documents_per_step,
            step_tokens=settings.step_tokens,
            packing=packing,
            logits_workspace_mib=settings.logits_workspace_mib or LOGITS_WORKSPACE_MIB,
            staying=_staying(settings, model),
            caching=caching,
            optimizer_cls_and_kwargs=optimizer,
        )
    data = {**corpus.to_json(), **windows.to_json(), **({"mixture": trainer.mixture_report()} if mixture else {})}
    if held_out:
        data["not_read"] += [f"eval_documents: {each}" for each in held_out[0].to_json()["not_read"]]
    data |= {"steps": trainer.total_steps, "remark": method.remark, **chain_of(settings)}
    if teacher and settings.teacher_precision in models.BITS:
        data["teacher"] = teacher_error(trainer, settings.teacher_precision)
    return trainer, data


def _refuse_before_reading(settings: AdaptSettings, documents: Any) -> None:
    """What can be told from the settings and from names, before anything is read."""
    models.refuse_bits(settings.teacher_precision, adapter=settings.use_peft)
    refuse_teacher(settings)
    models.refuse_name(settings.model_name_or_path)
    refuse_other_tokens(settings)
    if settings.load_in_4bit:
        models.require_bitsandbytes("load_in_4bit: true")
    refuse_other_adapter(settings)
    _refuse_missing(documents, settings)
    method = method_of(settings)
    refuse_generator(settings, method.view)
    if method.view.rewriting:
        arguments = arguments_of(settings, method, Path(settings.output_dir))
        refuse_rollouts(method.name, arguments, cached=settings.teacher == "cached")


def _refuse_missing(documents: Any, settings: AdaptSettings) -> None:
    """Documents that are nowhere are told before a model is fetched or loaded for them."""
    if documents is None:
        if not settings.documents:
            raise ConfigError(_NO_DOCUMENTS)
        refuse_missing(settings.documents)
    refuse_missing(settings.eval_documents)


def _staying(settings: AdaptSettings, model: Any) -> Staying:
    toward = reference_weights(settings, model) if settings.l2sp and settings.reference else None
    steps = settings.ema_steps or 1
    return Staying(pull=settings.l2sp, toward=toward, average=settings.ema, average_steps=steps)


def _packing(settings: AdaptSettings, model: Any, longest: int) -> Packing:
    layout = "padded" if settings.packing == "off" else None
    return models.packing_for(model, settings.micro_batch_tokens, longest=longest, layout=layout)


def _mixture(settings: AdaptSettings, work: Path, *, chat: bool) -> dict[str, MixtureSource]:
    """The sources of the mixture, read; `chat`: whether the model's own samples are conversations."""
    found = dict[str, MixtureSource]()
    for number, (name, source) in enumerate(settings.sources().items()):
        if source.own:
            kind, form = ("instructions", "chat") if chat else ("documents", "plain")
            files = _own_samples(settings, source.own, work.parent)
            source = source.model_copy(update={"files": files, "kind": kind, "format": form})
        found[name] = _source(settings, source, work, number)
    return found


def _own_samples(settings: AdaptSettings, count: int, run: Path) -> tuple[str, ...]:
    """The file of the model's own samples, or the reference's, in the run folder; written where it is not there yet."""
    path = run / OWN_SAMPLES_FILE

    def write() -> None:
        if is_main_process() and not path.is_file():
            write_own_text(settings.held_to, path, count=count, seed=_OWN_SEED)

    main_process_first(write)
    return (str(path),)


def _source(settings: AdaptSettings, source: SourceSettings, work: Path, number: int) -> MixtureSource:
    # What the documents' columns are called says nothing of a source's own.
    shared = {name: getattr(settings, name) for name in ("skip_bad_rows", "max_document_mib", "output_dir")}
    options = CorpusOptions.of({**shared, **source.model_dump()})
    read = partial(read_corpus, list(source.files), cache_dir=work / f"general-{number}", options=options)
    held = partial(read_corpus, list(source.eval_files), cache_dir=work / f"eval-{number}", options=options)
    return MixtureSource(
        documents=main_process_first(read),
        share=SourceShare(tokens=source.tokens, samples=source.samples, max_epochs=source.max_epochs),
        held_out=main_process_first(held) if source.eval_files else None,
        chat=source.format == "chat",
        skip_bad_rows=settings.skip_bad_rows,
    )


def _read(sources: Any, work: Path, settings: AdaptSettings) -> Corpus:
    if isinstance(sources, list) and not sources:
        raise ConfigError(_NO_DOCUMENTS)
    options = CorpusOptions.of(settings)
    return main_process_first(lambda: read_corpus(sources, cache_dir=work, options=options))


def method_of(settings: AdaptSettings) -> Method:
    """The method with the settings that were given for it."""
    return settings.configured_method()


def arguments_of(settings: AdaptSettings, method: Method, output_dir: Path) -> TrainingArguments:
    """TrainingArguments of a run. What TrainingArguments itself refuses is a ConfigError."""
    rate = {"learning_rate": models.LORA_LEARNING_RATE} if settings.use_peft else {}
    decided = {"bf16": _precision(settings) == "bf16_mixed", "output_dir": str(output_dir)}
    given = {**rate, **settings.training_settings()}
    with _refused_by_trainer(settings):
        args = training_arguments(method, **{**given, **settings.trainer, **decided})
    of_optimizer = ("learning_rate", "weight_decay", "warmup_steps", "lr_scheduler_type")
    own = {name: given[name] for name in of_optimizer if name in given}
    of_trainer = {f"trainer.{n}": v for n, v in settings.trainer.items() if n.startswith(("optim", "adam_", "lr_"))}
    try_optimizer(args, {**own, **of_trainer})
    return args


def used_settings(settings: AdaptSettings) -> AdaptSettings:
    """The settings with everything decided that was left to the method's declaration or to this machine."""
    method = method_of(settings)
    args = arguments_of(settings, method, Path(settings.output_dir))
    names = ("learning_rate", "warmup_steps", "weight_decay", "max_grad_norm")
    decided: dict[str, Any] = {name: getattr(args, name) for name in names}
    decided["lr_scheduler_type"] = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    decided["num_train_epochs"] = None if settings.max_steps else args.num_train_epochs
    declared = method.settings()
    decided |= {name: declared[name] for name in method.adjustable() if name in type(settings).model_fields}
    return settings.model_copy(update={**decided, **of_adapter(settings), "precision": _precision(settings)})


@contextlib.contextmanager
def _refused_by_trainer(settings: AdaptSettings) -> Generator[None, None, None]:
    """What transformers does not take of the settings becomes a ConfigError, under the setting that it quotes."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, ImportError, OSError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, OSError) and settings.push_to_hub:
            raise ConfigError(f"push_to_hub: the hub does not answer or does not know you. {text}") from error
        no_setting = isinstance(error, OSError) or (isinstance(error, RuntimeError) and "install" not in text)
        if isinstance(error, AfterwordError) or no_setting:
            raise  # Said already, or no setting: no memory, for example.
        own = {"lr_scheduler_type": settings.lr_scheduler_type, "report_to": " ".join(settings.report_to)}
        given = {**own, **{f"trainer.{name}": value for name, value in settings.trainer.items()}}
        quoted = [name for name, value in given.items() if value and str(value).lower() in text.lower()]
        raise ConfigError(f"{quoted[0] if quoted else 'trainer'}: {text}") from error


def _precision(settings: AdaptSettings) -> str:
    return models.resolved_precision(settings.precision, settings.model_name_or_path)


def _window_settings(settings: AdaptSettings, config: Any) -> WindowSettings:
    return WindowSettings(
        max_length=models.context_length(config, settings.max_length),
        window_overlap=settings.window_overlap,
        control_tokens=settings.control_tokens or "text",
        language=settings.language,
    )
