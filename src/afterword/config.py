"""Settings: one validated tree. A YAML file, the command line over it, every problem reported at once.

Names that transformers or peft gave keep their names. A setting whose value is None follows the method's own
declaration, or the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from afterword.errors import ConfigError

Precision = Literal["auto", "float32", "bf16_mixed", "bf16"]


def _setting(default: Any, text: str, panel: str, *, weights: bool = True, **rules: Any) -> Any:
    """A field with its help text, its panel on the command line, and whether it can change the weights."""
    return Field(default, description=text, json_schema_extra={"panel": panel, "weights": weights}, **rules)


_OPTIONAL = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
)
"""Settings that follow the method's declaration when not given."""
_DECIDED_ELSEWHERE = {
    "output_dir": "output_dir",
    "per_device_train_batch_size": "documents_per_step",
    "per_gpu_train_batch_size": "documents_per_step",
    "bf16": "precision",
    "fp16": "precision",
    "remove_unused_columns": "nothing: batches are built by the view",
    "ddp_find_unused_parameters": "nothing: every parameter is reached in every step",
    "label_names": "nothing: targets are built by the view",
    "group_by_length": "documents_per_step",
    "train_sampling_strategy": "documents_per_step",
}
"""Fields of TrainingArguments that a setting of ours, or the design, decides."""


class AdaptSettings(BaseModel):
    """Everything that `afterword adapt` can be told. Unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # The model's content and the documents' content are compared by hash, so their paths may change.
    model_name_or_path: str = _setting("", "Folder or hub id of the model to adapt.", "Model", weights=False)
    documents: tuple[str, ...] = _setting((), "Files, folders, globs, data-set ids.", "Documents", weights=False)
    output_dir: str = _setting("", "Run folder.", "Run", weights=False)
    method: str = _setting("disc", "See `afterword methods`.", "Method")

    strategy: str | None = _setting(
        None,
        "How a document is split: sentence, middle, uniform_sentence, random_token, uniform_token, random_token_suffix, all, anchor.",
        "Method",
    )
    targets: int | None = _setting(None, "Targets drawn from a document (k).", "Method", ge=1)
    suffix_tokens: int | None = _setting(
        None, "Length of a random_token_suffix target; to the end if not given.", "Method", ge=2
    )
    temperature: float | None = _setting(None, "Temperature τ of the divergence.", "Method", gt=0)
    averaging: Literal["document", "token"] | None = _setting(
        None, "Every document, or every token, weighs the same.", "Method"
    )
    join: Literal["document", "authors"] | None = _setting(
        None, "Tokenise the document once, or each sentence alone as the authors do.", "Method"
    )
    bos: Literal["auto", "always", "never"] | None = _setting(
        None, "BOS on both views; auto: as the tokenizer adds it.", "Method"
    )

    text_column: str | None = _setting(None, "Column of the text; detected if not given.", "Documents")
    id_column: str | None = _setting(None, "Column of the document id.", "Documents")
    title_column: str | None = _setting(None, "Column of the title.", "Documents")
    date_column: str | None = _setting(None, "Column of the date.", "Documents")
    source_column: str | None = _setting(None, "Column of the source.", "Documents")
    language: str = _setting("en", "Language code for finding sentences.", "Documents")
    skip_bad_rows: bool = _setting(False, "Skip broken rows, counted and listed, instead of stopping.", "Documents")
    max_document_mib: float = _setting(64.0, "A larger document stops the run.", "Documents", gt=0)
    max_documents: int | None = _setting(None, "Read at most so many documents.", "Documents", ge=1)
    streaming: bool = _setting(False, "Read data-set ids as streams.", "Documents")

    max_length: int | None = _setting(
        None, "Context in tokens; the model's own, at most 8192, if not given.", "Step", ge=16
    )
    window_overlap: float = _setting(0.25, "Share of the context that a later window repeats.", "Step", ge=0, le=0.75)
    documents_per_step: int = _setting(
        1, "Documents in an optimizer step, over all processes and accumulation.", "Step", ge=1
    )
    step_tokens: int | None = _setting(None, "Tokens in an optimizer step, instead of documents.", "Step", ge=1)
    micro_batch_tokens: int = _setting(
        8192, "Tokens in memory at once, on either side. Changes no gradient.", "Step", ge=16
    )
    packing: Literal["auto", "off"] = _setting(
        "auto", "Packed rows where the model keeps texts apart (checked).", "Step"
    )

    learning_rate: float | None = _setting(None, "Peak learning rate.", "Optimizer", gt=0)
    num_train_epochs: float | None = _setting(None, "Passes over the documents.", "Optimizer", gt=0)
    max_steps: int | None = _setting(None, "Optimizer steps, instead of passes.", "Optimizer", ge=1)
    lr_scheduler_type: str | None = _setting(None, "Schedule, as transformers names it.", "Optimizer")
    warmup_steps: float | None = _setting(None, "Steps, or a share of all steps if below 1.", "Optimizer", ge=0)
    weight_decay: float | None = _setting(None, "AdamW's decay.", "Optimizer", ge=0)
    max_grad_norm: float | None = _setting(None, "Clip gradients at this norm; 0: do not.", "Optimizer", ge=0)
    gradient_accumulation_steps: int = _setting(1, "Parts that a step is loaded in.", "Optimizer", ge=1)
    gradient_checkpointing: bool = _setting(False, "Less memory, about a third more time.", "Optimizer")
    seed: int = _setting(0, "Order of the documents, draws of targets, dropout, adapters.", "Optimizer", ge=0)

    precision: Precision = _setting(
        "auto", "auto: float32 weights under bf16 autocast on GPUs that have it, float32 elsewhere.", "Model"
    )
    teacher_precision: Literal["auto", "float32", "bf16"] = _setting("auto", "auto: bf16 on GPU.", "Model")
    attn_implementation: str | None = _setting(None, "sdpa, eager, flash_attention_2, flex_attention.", "Model")

    use_peft: bool = _setting(False, "LoRA instead of all weights.", "LoRA")
    lora_r: int = _setting(16, "Rank.", "LoRA", ge=1)
    lora_alpha: int = _setting(32, "Scale: alpha / r.", "LoRA", ge=1)
    lora_dropout: float = _setting(0.1, "Dropout before the adapter.", "LoRA", ge=0, lt=1)
    lora_target_modules: tuple[str, ...] = _setting(("all-linear",), "Modules that get an adapter.", "LoRA")
    lora_modules_to_save: tuple[str, ...] = _setting((), "Modules trained whole.", "LoRA")
    lora_bias: str = _setting("none", "Only 'none' keeps the teacher what it was.", "LoRA")
    use_dora: bool = _setting(False, "Weight-decomposed LoRA.", "LoRA")
    merge_adapter: bool = _setting(False, "Also write the merged model to merged/.", "LoRA", weights=False)

    eval_documents: tuple[str, ...] = _setting(
        (), "Held-out documents, evaluated while training.", "Run", weights=False
    )
    eval_steps: int | None = _setting(None, "Evaluate every so many steps.", "Run", weights=False, ge=1)
    save_steps: int = _setting(500, "Write a checkpoint every so many steps.", "Run", weights=False, ge=1)
    save_total_limit: int | None = _setting(2, "Checkpoints kept.", "Run", weights=False, ge=1)
    report_to: tuple[str, ...] = _setting((), "Loggers: wandb, tensorboard, …", "Run", weights=False)
    push_to_hub: bool = _setting(False, "Push the result to the hub.", "Run", weights=False)
    dataloader_num_workers: int = _setting(0, "Processes that build batches.", "Run", weights=False, ge=0)
    trainer: dict[str, Any] = _setting({}, "Any other field of TrainingArguments: KEY=VALUE.", "Run")

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any, info: Any) -> Any:
        """`documents: notes/` in a YAML file means a list of one."""
        wants_list = info.field_name and "tuple" in str(cls.model_fields[info.field_name].annotation)
        return (value,) if wants_list and isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a finite number")
        return value

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        if not self.model_name_or_path:
            yield "model_name_or_path: missing, and it has no default. Give a model folder or hub id."
        if self.step_tokens is not None and self.documents_per_step != 1:
            yield (
                f"step_tokens: {self.step_tokens} contradicts documents_per_step: {self.documents_per_step}. "
                "A step is a number of tokens or of documents: give one."
            )
        if self.eval_steps is not None and not self.eval_documents:
            yield f"eval_steps: {self.eval_steps} needs eval_documents, the held-out documents to evaluate on."
        if self.max_length is not None and self.micro_batch_tokens < self.max_length:
            yield (
                f"micro_batch_tokens: {self.micro_batch_tokens} is less than max_length: {self.max_length}, so one "
                "document would not fit. Raise it, or lower max_length."
            )
        if self.precision == "bf16" and self.teacher_precision == "float32":
            yield "teacher_precision: float32 with precision: bf16 makes the teacher another model. Use auto."
        if self.merge_adapter and not self.use_peft:
            yield "merge_adapter: true has no adapter to merge. Add use_peft, or leave it out."
        if self.suffix_tokens is not None and self.strategy != "random_token_suffix":
            yield f"suffix_tokens: {self.suffix_tokens} is read by strategy random_token_suffix only, not {self.strategy}."

    def method_settings(self) -> dict[str, Any]:
        """What was set of the method's own settings."""
        names = ("strategy", "targets", "suffix_tokens", "temperature", "averaging", "join", "bos")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def training_settings(self) -> dict[str, Any]:
        """What was set of TrainingArguments, by their names there."""
        always = (
            "gradient_accumulation_steps",
            "gradient_checkpointing",
            "seed",
            "save_steps",
            "save_total_limit",
            "push_to_hub",
            "dataloader_num_workers",
        )
        given = {name: getattr(self, name) for name in _OPTIONAL if getattr(self, name) is not None}
        evaluating = {"eval_strategy": "steps", "eval_steps": self.eval_steps} if self.eval_steps else {}
        report_to = {"report_to": list(self.report_to) or "none"}
        return {**given, **{name: getattr(self, name) for name in always}, **evaluating, **report_to}


def read_settings(raw: Mapping[str, Any], origin: str = "These settings") -> AdaptSettings:
    """Settings from a raw tree. Every problem is in the one ConfigError."""
    try:
        settings, problems = AdaptSettings.model_validate(dict(raw)), []
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors()]
        bad = {str(detail["loc"][0]) for detail in error.errors()}
        # The rest is checked too, so that a person mends everything at once.
        settings = AdaptSettings.model_validate({k: v for k, v in raw.items() if k not in bad})
    problems += [
        problem for problem in settings.relations() if problem.split(":")[0] not in {p.split(":")[0] for p in problems}
    ]
    problems += _method_problems(settings)
    problems += _trainer_problems(settings)
    if problems:
        raise ConfigError(problems)
    return settings


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of settings. Dashes in names are underscores."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config: {str(path)!r} does not exist. Give a YAML file of settings.") from None
    except OSError as error:
        raise ConfigError(f"config: {str(path)!r} cannot be read ({error.strerror}). Give a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: {str(path)!r} is not YAML. {' '.join(str(error).split())}") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"config: {str(path)!r} holds a {type(raw).__name__}. Give lines of `name: value`.")
    return {str(name).replace("-", "_"): value for name, value in raw.items()}


def to_yaml(settings: AdaptSettings) -> str:
    """The settings as a file that gives them back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(saved: Mapping[str, Any], now: AdaptSettings) -> list[str]:
    """Settings that affect the weights and differ between a saved run and this one, one line each."""
    lines = []
    for name, field in AdaptSettings.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        value = now.model_dump(mode="json")[name]
        before = saved.get(name, field.get_default())
        before = list(before) if isinstance(before, tuple) else before
        if extra["weights"] and before != value:
            lines.append(f"{name}: {before!r} in the run, {value!r} now.")
    return lines


def _method_problems(settings: AdaptSettings) -> list[str]:
    from afterword.methods import get_method

    try:
        get_method(settings.method).configured(**settings.method_settings())
    except ConfigError as error:
        return list(error.problems)
    from afterword.views import STRATEGIES

    if settings.strategy is not None and settings.strategy not in STRATEGIES:
        near = get_close_matches(settings.strategy, STRATEGIES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        return [f"strategy: {settings.strategy!r} is not known. {hint}Known: {', '.join(STRATEGIES)}."]
    return []


def _trainer_problems(settings: AdaptSettings) -> list[str]:
    """Fields under `trainer:` that TrainingArguments does not have, or that are decided elsewhere."""
    if not settings.trainer:
        return []
    # Slow to import, and needed by few.
    from transformers import TrainingArguments

    known = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    flat = {*settings.training_settings(), *_OPTIONAL}
    problems = []
    for name in settings.trainer:
        if name in _DECIDED_ELSEWHERE or name in flat:
            better = _DECIDED_ELSEWHERE.get(name, f"the setting {name} itself")
            problems.append(f"trainer.{name}: decided by {better}. Leave it out here.")
        elif name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "See TrainingArguments for its fields."
            problems.append(f"trainer.{name}: no such field of TrainingArguments. {hint}")
    return problems


def _problem(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(name, AdaptSettings.model_fields, n=1)
        hint = f"Did you mean {near[0]}?" if near else "A field of TrainingArguments belongs under trainer."
        return f"{name}: no such setting. {hint}"
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name}: {rule}, got {detail['input']!r}."
