"""Settings: one validated tree. A YAML file, the command line over it, every problem reported at once.

Names that transformers or peft gave keep their names. A setting whose value is None follows the method's own
declaration, or the model.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from afterword.data.control_tokens import ControlTokens
from afterword.data.views import Averaging, Strategy
from afterword.data.windows import Bos, Join
from afterword.errors import ConfigError, nearest
from afterword.named_models import NAMES
from afterword.settings.base import S, Settings, later, setting, validated
from afterword.settings.forgetting_budget import Budget, budget_of
from afterword.settings.mixture import SourceSettings, sources_of, with_amounts
from afterword.settings.trainer_arguments import trainer_problems

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


class AdaptSettings(Settings):
    """Everything that `afterword adapt` can be told."""

    # The model's content and the documents' content are compared by hash, so their paths may change.
    model_name_or_path: str = setting("", "Model", "Folder, GGUF file, hub id or name of the model.", weights=False)
    precision: Literal["auto", "float32", "bf16_mixed", "bf16"] = setting(
        "auto", "Model", "auto: float32 weights, under bf16 autocast where that is measured to be faster."
    )
    teacher_precision: Literal["auto", "float32", "bf16", "int8", "int4"] = setting(
        "auto", "Model", "auto: bf16 on GPU. int8, int4: its linear layers; the error in nats is measured and said."
    )
    teacher: Literal["copy", "adapter_off", "offload", "offload_disk", "cached", "top_k"] | None = later(
        "Model",
        "Where it is kept while the student trains.",
        exact=("copy", "adapter_off", "offload", "offload_disk", "cached"),
    )
    teacher_cache: str | None = setting(None, "Model", "Folder of cached, top_k; in the run's else.", weights=False)
    teacher_top_k: int | None = later("Model", "Likeliest tokens that top_k keeps; 64 if not given.", ge=1)
    save_precision: Literal["auto", "model", "float32", "bf16"] = later(
        "Model",
        "Of the result. auto: as the model came where rounding keeps what was learned (measured), else float32.",
        exact=("auto",),
        default="auto",
    )
    attn_implementation: str | None = setting(None, "Model", "sdpa, eager, flash_attention_2 (3, 4), flex_attention.")

    documents: tuple[str, ...] = setting((), "Documents", "Files, folders, globs, data-set ids.", weights=False)
    text_column: str | None = setting(None, "Documents", "Column of the text; detected if not given.")
    id_column: str | None = setting(None, "Documents", "Column of the document id.")
    title_column: str | None = setting(None, "Documents", "Column of the title.")
    date_column: str | None = setting(None, "Documents", "Column of the date.")
    source_column: str | None = setting(None, "Documents", "Column of the source.")
    language: str = setting("en", "Documents", "Language code for finding sentences.")
    skip_bad_rows: bool = setting(False, "Documents", "Skip broken rows, counted and listed, instead of stopping.")
    max_document_mib: float = setting(64.0, "Documents", "A larger document stops the run.", gt=0, le=1024)
    control_tokens: ControlTokens | None = later(
        "Documents", "Control tokens written in documents: text, refuse, keep.", exact=("text",)
    )
    max_documents: int | None = setting(None, "Documents", "Read at most so many documents.", ge=1)
    streaming: bool = setting(False, "Documents", "Read data-set ids as streams.")

    method: str = setting("disc", "Method", "See `afterword methods`.")
    strategy: Strategy | None = setting(None, "Method", "How a document is split; see the README.")
    targets: int | None = setting(None, "Method", "Targets drawn from a document (k).", ge=1)
    suffix_tokens: int | None = setting(None, "Method", "Length of a random_token_suffix target.", ge=2)
    temperature: float | None = setting(None, "Method", "Temperature τ of the divergence.", gt=0)
    averaging: Averaging | None = setting(None, "Method", "Every document, or every token, weighs the same.")
    join: Join | None = setting(None, "Method", "Tokenise the document once, or sentence by sentence (authors).")
    bos: Bos | None = setting(None, "Method", "BOS on both views; auto: as the tokenizer adds it.")
    alpha: float | None = later("Method", "Share of prediction beside self-distillation.", ge=0, le=1)
    direction: Literal["forward", "reverse"] | None = later("Method", "Of self-distillation: forward, reverse KL.")
    swap: bool | None = later("Method", "Exchange the gold token with the teacher's first.")
    beta: float | None = later("Method", "Factor of the KL beside prediction.", ge=0)
    floor: float | None = later("Method", "Least weight of a token.", ge=0, le=1)

    mixture: dict[str, Any] | None = later(
        "General text", "NAME=FILE,kind=KIND,tokens=SHARE; in YAML NAME: {files, kind, tokens, …}."
    )
    replay: str | None = later("General text", "What to do with it: prediction, kl, reverse_kl, swap.")
    replay_weight: float | None = later("General text", "Factor beside the loss of the documents.", ge=0)
    replay_documents: float | None = later("General text", "Factor of its own objective on the documents.", ge=0)
    replay_temperature: float | None = later("General text", "Temperature τ of the replay.", gt=0)
    replay_alpha: float | None = later("General text", "Share of prediction in a replay by swap.", ge=0, le=1)
    replay_direction: Literal["forward", "reverse"] | None = later("General text", "Of a replay by swap.")
    replay_swap: bool | None = later("General text", "Whether a replay by swap swaps.")

    max_length: int | None = setting(None, "Step", "Context in tokens; the model's, at most 8192.", ge=16)
    window_overlap: float = setting(0.25, "Step", "Share of the context that a later window repeats.", ge=0, le=0.75)
    documents_per_step: int = setting(1, "Step", "Documents in an optimizer step, over all processes.", ge=1)
    step_tokens: int | None = setting(None, "Step", "Tokens in an optimizer step, instead of documents.", ge=1)
    micro_batch_tokens: int | None = setting(
        None, "Step", "Tokens in memory at once; 4096, or 512 on a CPU. Changes no gradient.", ge=16
    )
    logits_workspace_mib: int | None = later("Step", "MiB for logits at a time, 512. Changes no gradient.", ge=1)
    packing: Literal["auto", "off"] = setting("auto", "Step", "Packed rows where the model keeps texts apart.")

    learning_rate: float | None = setting(
        None, "Optimizer", "Peak learning rate; auto, if not given: chosen by pilot runs within the budget.", gt=0
    )
    num_train_epochs: float | None = setting(None, "Optimizer", "Passes over the documents; auto if not given.", gt=0)
    max_steps: int | None = setting(None, "Optimizer", "Optimizer steps, instead of passes.", ge=1)
    lr_scheduler_type: str | None = setting(
        None, "Optimizer", "Schedule, as transformers names it; auto, if not given: linear decay."
    )
    warmup_steps: float | None = setting(None, "Optimizer", "Steps, or a share of all steps if below 1.", ge=0)
    weight_decay: float | None = setting(None, "Optimizer", "AdamW's decay.", ge=0)
    max_grad_norm: float | None = setting(None, "Optimizer", "Clip gradients at this norm; 0: do not.", ge=0)
    gradient_accumulation_steps: int = setting(1, "Optimizer", "Parts that a step is loaded in.", ge=1)
    gradient_checkpointing: bool = setting(False, "Optimizer", "Less memory, about a third more time.")
    seed: int = setting(0, "Optimizer", "Order of documents, draws of targets, dropout, adapters.", ge=0)

    preset: str | None = later("Budget", "METHOD-paper: the constants of the method's paper; nothing is chosen.")
    forgetting_budget: str | None = later(
        "Budget", "Most that may be lost: 0.1nats of drift, or 2points of retention on a suite or tasks."
    )
    suite: str | None = later("Budget", "Suite whose dev items say what is learned and lost; see `afterword evaluate`.")
    tasks: tuple[str, ...] | None = later("Budget", "Tasks of lm-evaluation-harness that say what is lost.")
    tasks_path: str | None = later("Budget", "Folder with more tasks.")
    questions: str | None = later("Budget", "JSON lines of questions whose answers say what is learned.")

    l2sp: float | None = later("Optimizer", "λ of a penalty (λ/2)·‖θ − θ0‖² toward the start.", ge=0)
    ema: float | None = later("Optimizer", "Share kept of a running average of weights; true: 0.92.", ge=0, lt=1)
    ema_steps: int | None = later("Optimizer", "Average every so many steps; 1 if not given.", ge=1)
    optimizer_states: Literal["float32", "8bit"] | None = later(
        "Optimizer", "AdamW's moments; where given, bf16 weights are rounded stochastically. As the weights."
    )

    use_peft: bool = setting(False, "LoRA", "LoRA instead of all weights.")
    lora_r: int = setting(16, "LoRA", "Rank.", ge=1)
    lora_alpha: int = setting(32, "LoRA", "Scale: alpha / r.", ge=1)
    lora_dropout: float = setting(0.1, "LoRA", "Dropout before the adapter.", ge=0, lt=1)
    lora_target_modules: tuple[str, ...] = setting(("all-linear",), "LoRA", "Modules that get an adapter.")
    lora_modules_to_save: tuple[str, ...] = setting((), "LoRA", "Modules trained whole.")
    lora_bias: str = setting("none", "LoRA", "Only 'none' keeps the teacher what it was.")
    use_dora: bool = setting(False, "LoRA", "Weight-decomposed LoRA.")
    merge_adapter: bool = setting(False, "LoRA", "Also write the merged model to merged/.", weights=False)

    output_dir: str = setting("", "Run", "Run folder.", weights=False)
    eval_documents: tuple[str, ...] = setting((), "Run", "Held-out documents.", weights=False)
    eval_steps: int | None = setting(None, "Run", "Evaluate on them every so many steps.", weights=False, ge=1)
    save_steps: int | None = setting(
        None, "Run", "Steps between checkpoints, kept at the end; else 500, removed.", weights=False, ge=1
    )
    save_total_limit: int | None = setting(
        None, "Run", "Newest checkpoints kept, 2; 0: all. Where given, also at the end.", weights=False, ge=0
    )
    report_to: tuple[str, ...] = setting((), "Run", "Loggers: wandb, tensorboard, …", weights=False)
    push_to_hub: bool = setting(False, "Run", "Push the result to the hub.", weights=False)
    dataloader_num_workers: int = setting(0, "Run", "Processes that build batches.", weights=False, ge=0)
    then: Literal["align"] | None = setting(None, "Run", "What follows the run: align.", weights=False)
    align: dict[str, Any] = setting({}, "Run", "Its settings: KEY=VALUE; see `afterword align`.", weights=False)
    trainer: dict[str, Any] = setting({}, "Run", "Any other field of TrainingArguments: KEY=VALUE.")

    @model_validator(mode="before")
    @classmethod
    def _method_of_preset(cls, raw: Any) -> Any:
        """A preset names its method, so that it need not be said twice."""
        if not isinstance(raw, Mapping) or not raw.get("preset"):
            return raw
        from afterword.methods import known_methods

        method = str(raw["preset"]).removesuffix(_PAPER)
        return {"method": method, **raw} if method in known_methods() else raw

    @field_validator(*_CHOSEN, "warmup_steps", mode="before")
    @classmethod
    def _left_to_us(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @field_validator("mixture", mode="after")
    @classmethod
    def _amounts(cls, mixture: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        return mixture and with_amounts(mixture, lambda: _declared_share(info.data.get("method")))

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
        if self.suffix_tokens is not None and self.strategy != "random_token_suffix":
            yield f"suffix_tokens: {self.suffix_tokens} is read by strategy random_token_suffix, not {self.strategy}."
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

    def budget(self) -> Budget:
        """The most that may be lost."""
        return budget_of(self.forgetting_budget, points=bool(self.suite or self.tasks))

    def method_settings(self) -> dict[str, Any]:
        """What was set of the method's own settings."""
        panels = {**self._panel("Method"), **self._panel("General text")}
        return {n: value for n, value in panels.items() if n not in ("method", "mixture") and value is not None}

    def configured_method(self) -> "Method":
        """The method with all that was set of it, and with the objectives of the mixture's sources."""
        # Imports torch, which --help can do without.
        from afterword.methods import get_method

        own = {name: (it.objective, it.weight or 1.0) for name, it in self.sources().items() if it.objective}
        return get_method(self.method).configured(**self.method_settings()).with_sources(own)

    def sources(self) -> dict[str, SourceSettings]:
        """The sources of general text, by name."""
        return sources_of(self.mixture or {})

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
        fields: Any = type(self).model_fields
        return {
            name: getattr(self, name) for name, field in fields.items() if field.json_schema_extra["panel"] == panel
        }


def read_settings(raw: Mapping[str, Any], kind: type[S] = AdaptSettings) -> S:
    """Settings from a raw tree. Every problem is in the one ConfigError."""
    return validated(raw, kind)


def _declared_share(method: str | None) -> float | None:
    """Of general text, as a method declares it; None also where there is no such method."""
    from afterword.methods import get_method

    with contextlib.suppress(ConfigError):
        return get_method(method or "").general_tokens
    return None


def _mixture_problems(settings: AdaptSettings) -> Iterator[str]:
    """Of every source; and text to evaluate on, and the steps to do it at, belong together."""
    steps = settings.eval_steps
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


def _method_problems(settings: AdaptSettings) -> tuple[str, ...]:
    if broken := bool(list(_mixture_problems(settings))):
        # Told already: the method is asked about its own settings alone.
        settings = settings.model_copy(update={"mixture": None})
    try:
        method = settings.configured_method()
    except ConfigError as error:
        return error.problems
    problem = None if broken else method.problem_with(general=settings.mixture or {})
    return (problem,) if problem else ()


def _attention_problems(settings: AdaptSettings) -> Iterator[str]:
    """Flash attention has kernels for half precision only, which fail in the first step."""
    kernel = settings.attn_implementation
    if kernel and "flash" in kernel and settings.precision == "float32":
        problem = f"attn_implementation: {kernel} reads in half precision, and precision is float32"
        yield f"{problem}. Use precision=bf16_mixed, or attn_implementation=sdpa."
