"""Settings: one validated tree. A YAML file, the command line over it, every problem reported at once.

Names that transformers or peft gave keep their names. A setting whose value is None follows the method's own
declaration, or the model.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import field_validator, model_validator

from afterword.data.control_tokens import ControlTokens
from afterword.errors import ConfigError, nearest
from afterword.named_models import NAMES
from afterword.settings.base import S, Settings, later, setting, validated
from afterword.settings.forgetting_budget import Budget, budget_of
from afterword.settings.method_panels import with_method_options, with_replay_options
from afterword.settings.mixture import OWN_SAMPLES, SourceSettings, sources_of, with_amounts, with_own_samples
from afterword.settings.retired import OF_ADAPT
from afterword.settings.trainer_arguments import trainer_problems
from afterword.settings.writing import GENERATOR, GENERATOR_MODEL, GENERATOR_REQUESTS, WRITTEN_FOLDER, writing_problems

if TYPE_CHECKING:
    from afterword.methods import Method

_CHOSEN = ("learning_rate", "num_train_epochs", "lr_scheduler_type")
"""What a run chooses where nobody says it."""
_PAPER = "-paper"
_MEASURED = ("suite", "tasks", "questions")
"""What a run within a budget measures itself by."""
_USUAL_EMA = 0.92
"""arXiv:2506.00288."""
_USUAL_SAVE_STEPS = 500
_USUAL_LIMIT = 2
"""Of checkpoints while a run goes on, where nothing was said of them."""


class _WhatAndHow(Settings):
    """What is taught to which model, and by which method: the panels before those of the method's own settings."""

    # The model's content and the documents' content are compared by hash, so their paths may change.
    model_name_or_path: str = setting("", "Model", "Model to teach: folder, GGUF file, hub id or name.", weights=False)
    reference: str | None = setting(
        None,
        "Model",
        "First model, which stays frozen: teacher, and what drift, budget and l2sp are held to (default: MODEL).",
        weights=False,
    )
    precision: Literal["auto", "float32", "bf16_mixed", "bf16"] = setting(
        "auto", "Model", "Of training. auto: float32 weights, under bf16 autocast where that is measured to be faster."
    )
    teacher_precision: Literal["auto", "float32", "bf16", "int8", "int4"] = setting(
        "auto",
        "Model",
        "Of the teacher. auto: bf16 on a GPU. int8, int4: of its linear layers; the error in nats is printed.",
    )
    teacher: Literal["copy", "adapter_off", "offload", "cached"] | None = later(
        "Model",
        "Where the teacher is kept while the student trains.",
        exact=("copy", "adapter_off", "offload", "cached"),
    )
    teacher_cache: str | None = setting(
        None, "Model", "Where `cached` teachers store results (default: the run folder).", weights=False
    )
    save_precision: Literal["auto", "model", "float32", "bf16"] = later(
        "Model",
        "Of the saved model. auto: that of the model given, unless rounding to it loses what was learned.",
        exact=("auto",),
        default="auto",
    )
    attn_implementation: str | None = setting(
        None, "Model", "Attention kernel: sdpa, eager, flash_attention_2 (or _3, _4), flex_attention."
    )

    documents: tuple[str, ...] = setting((), "Documents", "Files, folders, globs or data-set ids.", weights=False)
    text_column: str | None = setting(None, "Documents", "Column that holds the text (default: detected).")
    text_after: str | None = later("Documents", "Mark behind which the text begins, as <context> (default: the whole).")
    id_column: str | None = setting(None, "Documents", "Column that holds the document's id.")
    title_column: str | None = setting(None, "Documents", "Column that holds the title.")
    date_column: str | None = setting(None, "Documents", "Column that holds the date.")
    source_column: str | None = setting(None, "Documents", "Column that holds the source; losses are reported by it.")
    language: str = setting("en", "Documents", "Language code, by which sentences are found.")
    skip_bad_rows: bool = setting(False, "Documents", "Skip broken rows and list them, instead of stopping.")
    max_document_mib: float = setting(
        64.0, "Documents", "Largest document, in MiB. A larger one stops the run.", gt=0, le=1024
    )
    control_tokens: ControlTokens | None = later(
        "Documents", "Control tokens in documents: text (read as text), refuse (stop the run) or keep.", exact=("text",)
    )
    max_documents: int | None = setting(None, "Documents", "Most documents that are read.", ge=1)
    streaming: bool = setting(False, "Documents", "Read data-set ids as streams, without downloading them first.")

    method: str = setting("finetune", "Method", "See `afterword methods`; or package.module:NAME of your own.")


class _WithGeneralText(with_method_options(_WhatAndHow)):
    """The same with the method's own settings and the general text beside the documents."""

    mixture: dict[str, Any] | None = later(
        "General text",
        "A source of general text: NAME=FILE,kind=KIND,tokens=SHARE. In YAML: NAME: {files: …, kind: …, tokens: …}.",
    )
    own_samples: float | None = later(
        "General text",
        "Share of all tokens that is text of the model's own, written before training: no general data is needed.",
        gt=0,
        lt=1,
    )
    replay: str | None = later("General text", "What to do with general text: prediction, kl, reverse_kl or swap.")


class AdaptSettings(with_replay_options(_WithGeneralText)):
    """Everything that `afterword adapt` can be told."""

    retired = OF_ADAPT

    generator: str | None = GENERATOR
    generator_model: str | None = GENERATOR_MODEL
    generator_requests: int = GENERATOR_REQUESTS
    written_folder: str | None = WRITTEN_FOLDER

    max_length: int | None = setting(None, "Step", "Context in tokens (default: the model's, at most 8192).", ge=16)
    window_overlap: float = setting(0.25, "Step", "Share of a window that the next one repeats.", ge=0, le=0.75)
    documents_per_step: int = setting(1, "Step", "Documents in an optimizer step, over all processes together.", ge=1)
    step_tokens: int | None = setting(None, "Step", "Tokens in an optimizer step, instead of documents.", ge=1)
    micro_batch_tokens: int | None = setting(
        None, "Step", "Tokens computed at once (default: 4096, on a CPU 512). Changes no gradient.", ge=16
    )
    logits_workspace_mib: int | None = later("Step", "Memory for logits (default: 512). Changes no gradient.", ge=1)
    packing: Literal["auto", "off"] = setting(
        "auto", "Step", "auto: put several texts into one row where the model keeps them apart. off: one text a row."
    )

    learning_rate: float | None = setting(
        None,
        "Optimizer",
        "Peak learning rate (default: auto, chosen by pilot runs within the forgetting budget).",
        gt=0,
    )
    num_train_epochs: float | None = setting(None, "Optimizer", "Passes over the documents (default: auto).", gt=0)
    max_steps: int | None = setting(None, "Optimizer", "Number of optimizer steps, instead of passes.", ge=1)
    lr_scheduler_type: str | None = setting(
        None, "Optimizer", "Schedule, as transformers names it (default: auto, linear)."
    )
    warmup_steps: float | None = setting(None, "Optimizer", "Warm-up steps, or below 1 a share of all steps.", ge=0)
    weight_decay: float | None = setting(None, "Optimizer", "Weight decay of AdamW.", ge=0)
    max_grad_norm: float | None = setting(None, "Optimizer", "Clip gradients at this norm. 0: do not clip.", ge=0)
    gradient_accumulation_steps: int = setting(1, "Optimizer", "Parts in which the data of a step is loaded.", ge=1)
    gradient_checkpointing: bool = setting(
        False, "Optimizer", "Compute activations again instead of keeping them: less memory, about a third more time."
    )
    seed: int = setting(
        0, "Optimizer", "Seed: order of documents, draws of targets, dropout, adapters' first weights.", ge=0
    )

    preset: str | None = later("Budget", "METHOD-paper: use the constants of the method's paper, and choose nothing.")
    forgetting_budget: str | None = later(
        "Budget", "Most that the run may lose: 0.1nats of drift, or 2points of retention on a suite or tasks."
    )
    suite: str | None = later("Budget", "Suite whose dev items measure learning and loss (see `afterword evaluate`).")
    tasks: tuple[str, ...] | None = later("Budget", "Benchmarks that measure what is lost (see `afterword evaluate`).")
    tasks_path: str | None = later("Budget", "Folder with more tasks.")
    questions: str | None = later("Budget", "JSON-lines file of questions that measure what is learned.")

    l2sp: float | None = later("Optimizer", "λ of the penalty (λ/2)·‖θ − θ0‖², which pulls weights to the start.", ge=0)
    ema: float | None = later(
        "Optimizer", "Keep a running average of the weights, with this share of the old one. true: 0.92.", ge=0, lt=1
    )
    ema_steps: int | None = later("Optimizer", "Steps between updates of that average (default: 1).", ge=1)
    optimizer_states: Literal["float32", "8bit"] | None = later(
        "Optimizer", "Of AdamW's moments (default: as the weights). If given, bf16 weights are rounded stochastically."
    )

    use_peft: bool = setting(False, "LoRA", "Train a LoRA adapter instead of all weights.")
    lora_r: int = setting(16, "LoRA", "Rank r of the adapter.", ge=1)
    lora_alpha: int = setting(32, "LoRA", "Scale of the adapter is lora_alpha / lora_r.", ge=1)
    lora_dropout: float = setting(0.1, "LoRA", "Dropout on the input of the adapter.", ge=0, lt=1)
    lora_target_modules: tuple[str, ...] = setting(("all-linear",), "LoRA", "Modules that get an adapter.")
    lora_modules_to_save: tuple[str, ...] = setting((), "LoRA", "Modules trained whole and saved with the adapter.")
    lora_bias: str = setting("none", "LoRA", "Biases to train. Only 'none' leaves the teacher unchanged.")
    use_dora: bool = setting(False, "LoRA", "Use DoRA, the weight-decomposed LoRA.")
    load_in_4bit: bool = later(
        "LoRA", "QLoRA: hold the model below the adapter in 4 bits (bitsandbytes).", exact=(False,), default=False
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = later(
        "LoRA", "Which 16 values 4 bits stand for: nf4 or fp4.", exact=("nf4",), default="nf4"
    )
    bnb_4bit_use_double_quant: bool = later(
        "LoRA", "Hold the scales of 64 values each in 8 bits, too.", exact=(True,), default=True
    )
    merge_adapter: bool = setting(False, "LoRA", "Also save the merged model, in merged/.", weights=False)

    output_dir: str = setting("", "Run", "Folder of the run.", weights=False)
    eval_documents: tuple[str, ...] = setting((), "Run", "Held-out documents to evaluate on.", weights=False)
    eval_steps: int | None = setting(None, "Run", "Steps between evaluations on them.", weights=False, ge=1)
    save_steps: int | None = setting(
        None,
        "Run",
        "Steps between checkpoints. If given, they are kept at the end (default: 500, removed at the end).",
        weights=False,
        ge=1,
    )
    save_total_limit: int | None = setting(
        None,
        "Run",
        "Number of newest checkpoints to keep, also at the end. 0: all (default: 2 during the run).",
        weights=False,
        ge=0,
    )
    report_to: tuple[str, ...] = setting((), "Run", "Loggers: wandb, tensorboard, …", weights=False)
    push_to_hub: bool = setting(False, "Run", "Push the finished model to the Hugging Face hub.", weights=False)
    dataloader_num_workers: int = setting(0, "Run", "Extra processes that build batches.", weights=False, ge=0)
    then: Literal["align"] | None = setting(
        None, "Run", "What follows the run: align (see `afterword align`).", weights=False
    )
    align: dict[str, Any] = setting({}, "Run", "Its settings: KEY=VALUE (see `afterword align`).", weights=False)
    trainer: dict[str, Any] = setting({}, "Run", "Any other field of TrainingArguments: KEY=VALUE.")

    @model_validator(mode="before")
    @classmethod
    def _said_by_others(cls, raw: Any) -> Any:
        """What need not be said twice: a preset names its method, and a method how much it reads of the model's own."""
        if not isinstance(raw, Mapping):
            return raw
        given = cast("Mapping[str, Any]", raw)
        if given.get("preset"):
            from afterword.methods import known_methods

            method = str(given["preset"]).removesuffix(_PAPER)
            given = {"method": method, **given} if method in known_methods() else given
        if given.get("mixture") or given.get(OWN_SAMPLES) is not None:
            return given
        share = _declared(given.get("method", cls.model_fields["method"].default), OWN_SAMPLES)
        return given if share is None else {**given, OWN_SAMPLES: share}

    @field_validator(*_CHOSEN, "warmup_steps", mode="before")
    @classmethod
    def _left_to_us(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("mixture", mode="after")
    @classmethod
    def _amounts(cls, mixture: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        return mixture and with_amounts(mixture, lambda: _declared(info.data.get("method"), "general_tokens"))

    @field_validator("save_precision", mode="before")
    @classmethod
    def _not_given(cls, value: Any) -> Any:
        # As configurations have it that were written before there was a choice.
        return value or "auto"

    @field_validator("ema", mode="before")
    @classmethod
    def _share_kept(cls, value: Any) -> Any:
        return {"true": _USUAL_EMA, "false": None}.get(str(value).lower(), value)

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        length, tokens = self.max_length, self.micro_batch_tokens
        if not self.model_name_or_path:
            yield f"model_name_or_path: missing, and it has no default. Give a model folder or hub id, or {NAMES[-1]}."
        if self.step_tokens is not None and self.documents_per_step != 1:
            both = f"step_tokens: {self.step_tokens} contradicts documents_per_step: {self.documents_per_step}."
            yield f"{both} A step is a number of tokens or of documents: give one."
        if length is not None and tokens is not None and tokens < length:
            less = f"micro_batch_tokens: {tokens} is less than max_length: {length}, so one document would not fit."
            yield f"{less} Raise it, or lower max_length."
        if self.precision == "bf16" and self.teacher_precision == "float32":
            yield "teacher_precision: float32 with precision: bf16 makes the teacher another model. Use auto."
        if self.align and not self.then:
            yield "align: is read where `then: align` asks for it. Add it, or leave these settings out."
        if self.save_precision != "auto" and self.use_peft and not self.merge_adapter:
            whole = f"save_precision: {self.save_precision} is for whole models, and use_peft saves an adapter"
            yield f"{whole}. Add merge_adapter, or leave it out."
        if self.ema_steps is not None and self.ema is None:
            yield f"ema_steps: {self.ema_steps} needs ema, the share of the average that is kept."
        if self.merge_adapter and not self.use_peft:
            yield "merge_adapter: true has no adapter to merge. Add use_peft, or leave it out."
        yield from writing_problems(self.generator, self.generator_model)
        yield from _reference_problems(self)
        yield from _four_bit_problems(self)
        yield from _budget_problems(self)
        yield from _mixture_problems(self)
        yield from _method_problems(self)
        yield from _attention_problems(self)
        yield from trainer_problems(self.trainer, AdaptSettings.model_fields)

    @property
    def free(self) -> tuple[str, ...]:
        """Of rate, passes and schedule, those that are left to be chosen for this model, method and corpus."""
        fixed = {"num_train_epochs"} if self.max_steps else set[str]()
        return () if self.preset else tuple(n for n in _CHOSEN if getattr(self, n) is None and n not in fixed)

    @property
    def is_guided(self) -> bool:
        """Whether the run is held to a forgetting budget: one is given, or something is left to be chosen."""
        return bool(self.free) or self.forgetting_budget is not None

    @property
    def held_to(self) -> str:
        """The frozen model that is the teacher, and that what is lost is measured against."""
        return self.reference or self.model_name_or_path

    def budget(self) -> Budget:
        """The most that may be lost."""
        return budget_of(self.forgetting_budget, points=bool(self.suite or self.tasks))

    def method_settings(self) -> dict[str, Any]:
        """What was set of the method's own settings."""
        panels = {**self._panel("Method"), **self._panel("General text")}
        ours = ("method", "mixture", OWN_SAMPLES)
        return {n: value for n, value in panels.items() if n not in ours and value is not None}

    def configured_method(self) -> "Method":
        """The method with all that was set of it, and with the objectives of the mixture's sources."""
        # Imports torch, which --help can do without.
        from afterword.methods import configured_method

        method = configured_method(self.method, **self.method_settings())
        # What the model says of its own is all that its samples teach.
        silent = None if method.takes_general_text else "kl"
        objectives = {name: it.objective or (silent if it.own else None) for name, it in self.sources().items()}
        weights = {name: it.weight or 1.0 for name, it in self.sources().items()}
        return method.with_sources({name: (given, weights[name]) for name, given in objectives.items() if given})

    def sources(self) -> dict[str, SourceSettings]:
        """The sources of general text, by name."""
        return sources_of(with_own_samples(self.mixture or {}, self.own_samples))

    def training_settings(self) -> dict[str, Any]:
        """What was set of TrainingArguments, by their names there."""
        # A switch that is off is not said: gradient_checkpointing has another name in newer versions.
        ours = ("l2sp", "ema", "ema_steps", "optimizer_states")
        given = {
            n: v for n, v in self._panel("Optimizer").items() if v is not None and v is not False and n not in ours
        }
        names = ("push_to_hub", "dataloader_num_workers")
        limit = _USUAL_LIMIT if self.save_total_limit is None else self.save_total_limit or None
        given |= {"save_steps": self.save_steps or _USUAL_SAVE_STEPS, "save_total_limit": limit}
        evaluating = {"eval_strategy": "steps", "eval_steps": self.eval_steps} if self.eval_steps else {}
        run = {**{name: getattr(self, name) for name in names}, "report_to": list(self.report_to) or "none"}
        return {**given, **run, **evaluating}

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether checkpoints were asked for, and so stay when the run is finished."""
        in_trainer = any(name.startswith("save_") or name == "load_best_model_at_end" for name in self.trainer)
        return in_trainer or self.save_steps is not None or self.save_total_limit is not None

    def _panel(self, panel: str) -> dict[str, Any]:
        return {n: getattr(self, n) for n in type(self).model_fields if self.about(n)["panel"] == panel}


def read_settings(raw: Mapping[str, Any], kind: type[S] = AdaptSettings) -> S:
    """Settings from a raw tree. Every problem is in the one ConfigError."""
    return validated(raw, kind)


def _declared(method: Any, share: str) -> float | None:
    """A share of tokens as a method declares it; None also where there is no such method."""
    from afterword.methods import get_method

    with contextlib.suppress(ConfigError):
        return getattr(get_method(str(method or "")), share)
    return None


def _reference_problems(settings: AdaptSettings) -> Iterator[str]:
    """What an adapter cannot do against a model that is not the one below it."""
    if not (settings.reference and settings.use_peft):
        return
    if settings.teacher == "adapter_off":
        why = "'adapter_off' is the model below the adapter, and reference names another"
        yield f"teacher: {why}. Use copy, offload or cached."
    if settings.l2sp:
        yield "l2sp: pulls an adapter to nothing, which is not the reference. Leave it out, or train without use_peft."
    if settings.is_guided:
        why = "the way from the reference to a model with an adapter is not one of the adapter"
        fixed = "learning_rate, num_train_epochs and lr_scheduler_type, and no forgetting_budget"
        yield f"forgetting_budget: {why}. Give {fixed}, or train without use_peft."


def _four_bit_problems(settings: AdaptSettings) -> Iterator[str]:
    """A base in 4 bits cannot be trained, has no second copy, and is whole in every process."""
    if not settings.load_in_4bit:
        if settings.bnb_4bit_quant_type != "nf4" or not settings.bnb_4bit_use_double_quant:
            name = "bnb_4bit_use_double_quant" if settings.bnb_4bit_quant_type == "nf4" else "bnb_4bit_quant_type"
            yield f"{name}: is read where load_in_4bit is set. Add it, or leave this out."
        return
    if not settings.use_peft:
        yield "load_in_4bit: true has weights that cannot be trained. Add use_peft, or leave it out."
    if settings.teacher in ("copy", "offload") and not settings.reference:
        why = "would be the model in its own precision, and the student begins in 4 bits"
        yield f"teacher: {settings.teacher} {why}. Use adapter_off, or cached."
    if shards := next((kind for kind in ("fsdp", "deepspeed") if settings.trainer.get(kind)), None):
        why = f"has the model whole in every process, and trainer.{shards} has it in shards"
        yield f"load_in_4bit: true {why}. Leave one out."


def _mixture_problems(settings: AdaptSettings) -> Iterator[str]:
    """Of every source; and text to evaluate on, and the steps to do it at, belong together."""
    steps = settings.eval_steps
    if settings.own_samples and OWN_SAMPLES in (settings.mixture or {}):
        yield "own_samples: the mixture has a source of this name. Leave one of them out."
    try:
        held_out = [name for name, source in settings.sources().items() if source.eval_files]
    except ConfigError as error:
        yield from error.problems
        return
    if steps is not None and not settings.eval_documents and not held_out:
        problem = f"eval_steps: {steps} needs eval_documents, the held-out documents to evaluate on"
        yield f"{problem}, or a source of the mixture with eval_files."
    if held_out and steps is None and "eval_strategy" not in settings.trainer:
        yield f"mixture.{held_out[0]}.eval_files: are evaluated on every eval_steps, which is missing. Give it."


def _budget_problems(settings: AdaptSettings) -> Iterator[str]:
    """Of the budget, of the preset, and of what only a run with a budget reads."""
    from afterword.methods import known_methods

    known = [f"{name}{_PAPER}" for name in known_methods()]
    if (preset := settings.preset) and preset != f"{settings.method}{_PAPER}":
        if preset in known:
            yield f"preset: {preset!r} is of another method than {settings.method!r}. Leave method out, or preset."
        else:
            yield f"preset: there is no {preset!r}. {nearest(preset, known)}Known: {', '.join(known)}."
    try:
        settings.budget()
    except ConfigError as error:
        yield from error.problems
    if not settings.is_guided and (read := [name for name in _MEASURED if getattr(settings, name)]):
        why = "is read by a run with a forgetting_budget, and with rate, passes and schedule fixed there is none"
        yield f"{read[0]}: {why}. Give forgetting_budget, or ask afterwards with `afterword evaluate`."


def _method_problems(settings: AdaptSettings) -> Iterator[str]:
    if broken := bool(list(_mixture_problems(settings))):
        # Told already: the method is asked about its own settings alone.
        settings = settings.model_copy(update={"mixture": None, OWN_SAMPLES: None})
    try:
        method = settings.configured_method()
    except ConfigError as error:
        yield from error.problems
        return
    strategy, suffix = method.settings().get("strategy"), settings.method_settings().get("suffix_tokens")
    if suffix is not None and strategy != "random_token_suffix":
        yield f"suffix_tokens: {suffix} is read by strategy random_token_suffix, not {strategy}."
    if not broken and (problem := method.problem_with(general=settings.sources())):
        yield problem


def _attention_problems(settings: AdaptSettings) -> Iterator[str]:
    """Flash attention has kernels for half precision only, which fail in the first step."""
    kernel = settings.attn_implementation
    if kernel and "flash" in kernel and settings.precision == "float32":
        problem = f"attn_implementation: {kernel} reads in half precision, and precision is float32"
        yield f"{problem}. Use precision=bf16_mixed, or attn_implementation=sdpa."
