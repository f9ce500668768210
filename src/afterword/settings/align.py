"""Settings of `afterword align`, checked before anything runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from afterword.corpus import Kind
from afterword.errors import ConfigError
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.base import Settings, later, setting, underscored
from afterword.settings.mixture import sources_of

Rule = Literal["perplexity", "format_score", "random"]
Stage = Literal["sft", "dpo"]


class AlignSettings(Settings):
    """Everything that `afterword align` can be told. Defaults where Mix-CPT's are not readable: METHODS §2."""

    # Content is compared by hash, so paths may change.
    model_name_or_path: str = setting("", "What", "Run folder, model folder or hub id to align.", weights=False)
    instructions: tuple[str, ...] = setting((), "What", "Files of general instructions, for SFT.", weights=False)
    preferences: tuple[str, ...] = setting((), "What", "Files of general preference pairs, for DPO.", weights=False)
    chat_template: str | None = setting(None, "What", "A name or a file (default: the tokenizer's).", weights=False)
    skip_bad_rows: bool = setting(False, "What", "Skip broken rows, instead of stopping.", weights=False)
    max_length: int | None = setting(None, "What", "Context in tokens (default: the model's, at most 8192).", ge=16)
    output_dir: str = setting("", "What", "Folder of the aligned model.", weights=False)

    selection: Rule = setting("perplexity", "Selection", "Select by perplexity, by format_score, or at random.")
    instruction_count: int = setting(1000, "Selection", "Most instructions that are selected.", ge=1)
    preference_count: int = setting(1000, "Selection", "Most preference pairs that are selected.", ge=1)
    quotas: dict[str, Any] = setting({}, "Selection", "A source's number, or share below 1, of either count.")
    joiner: str | None = later(
        "Selection",
        "Text between turns scored without the template (default: as in the run's mixture, else a blank line).",
    )
    micro_batch_tokens: int | None = setting(
        None, "Selection", "Tokens scored at once (default: 4096 on a GPU, else 512).", weights=False, ge=16
    )

    sft_learning_rate: float = setting(2e-5, "SFT", "Peak learning rate.", gt=0)
    sft_epochs: float = setting(1.0, "SFT", "Passes over the selected instructions.", gt=0)
    sft_batch_size: int = setting(16, "SFT", "Instructions in an optimizer step.", ge=1)
    dpo_learning_rate: float = setting(5e-7, "DPO", "Peak learning rate.", gt=0)
    dpo_beta: float = setting(0.1, "DPO", "β of DPO: a larger one keeps the model closer to where DPO started.", gt=0)
    dpo_epochs: float = setting(1.0, "DPO", "Passes over the selected pairs.", gt=0)
    dpo_batch_size: int = setting(16, "DPO", "Pairs in an optimizer step.", ge=1)

    warmup_steps: float = setting(0.03, "Training", "Warm-up steps, or below 1 a share of all steps.", ge=0)
    gradient_accumulation_steps: int = setting(1, "Training", "Parts in which a step is computed.", ge=1)
    gradient_checkpointing: bool = setting(
        False, "Training", "Compute activations again instead of keeping them: less memory, about a third more time."
    )
    precision: Literal["auto", "float32", "bf16_mixed"] = setting(
        "auto", "Training", "auto: float32 weights under bf16 autocast on GPUs that have it, float32 elsewhere."
    )
    save_precision: Literal["auto", "model", "float32", "bf16"] = later(
        "Training",
        "Of the saved model. auto: that of the model given, unless rounding to it loses what was learned.",
        exact=("auto",),
        default="auto",
    )
    use_peft: bool = setting(False, "Training", "Train a LoRA adapter. One that the model has is trained anyway.")
    save_steps: int = setting(25, "Training", "Steps between checkpoints.", weights=False, ge=1)
    seed: int = setting(0, "Training", "Seed: order of samples, random selection, adapters' first weights.", ge=0)

    @field_validator("save_precision", mode="before")
    @classmethod
    def _not_given(cls, value: Any) -> Any:
        # As configurations have it that were written before there was a choice.
        return value or "auto"

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        for name in ("model_name_or_path", "output_dir"):
            if not getattr(self, name):
                yield f"{name}: missing, and it has no default. Give it in the YAML file or on the command line."
        if not self.instructions and not self.preferences:
            yield "instructions: missing, and so are preferences. Give files for SFT, for DPO, or for both."
        for name in ("sft_batch_size", "dpo_batch_size"):
            if getattr(self, name) % self.gradient_accumulation_steps:
                parts = f"{self.gradient_accumulation_steps} parts of gradient_accumulation_steps"
                yield f"{name}: {getattr(self, name)} cannot be cut into {parts}. Give a multiple of it."
        yield from self._quota_problems()

    def _quota_problems(self) -> Iterator[str]:
        for source, quota in self.quotas.items():
            if not (type(quota) is int and quota >= 1) and not (type(quota) is float and 0 < quota < 1):
                rule = "must be a number of samples, or a share above 0 and below 1"
                yield f"quotas.{source}: {rule}, got {quota!r}. Write {source}=100 or {source}=0.25."

    def samples(self) -> dict[Kind, tuple[str, ...]]:
        """The files of each kind that was given."""
        given: dict[Kind, tuple[str, ...]] = {"instructions": self.instructions, "preferences": self.preferences}
        return {kind: files for kind, files in given.items() if files}

    def count_of(self, kind: Kind) -> int:
        """How many samples of a kind are to be selected."""
        return self.instruction_count if kind == "instructions" else self.preference_count

    def stage(self, stage: Stage) -> dict[str, Any]:
        """A stage's own settings, by their names without the stage."""
        return {name: getattr(self, f"{stage}_{name}") for name in ("learning_rate", "epochs", "batch_size")}


def joiner_of(settings: AlignSettings, mixture: Mapping[str, Any] | None) -> str:
    """What stands between turns that are scored without the template, where the run before read `mixture`.

    ConfigError where the sources of that differ, and none was asked for.
    """
    if settings.joiner is not None:
        return settings.joiner
    plain = [s for s in sources_of(mixture or {}).values() if s.kind != "documents" and s.format == "plain"]
    found = list(dict.fromkeys(source.joiner for source in plain)) or ["\n\n"]
    if len(found) > 1:
        problem = f"the sources of the run's mixture have {' and '.join(map(repr, found))}"
        raise ConfigError(f"joiner: {problem}. Give the one that samples are scored with.")
    return found[0]


def following(settings: AdaptSettings) -> AlignSettings | None:
    """The alignment that follows a run where `then: align` asks for it, into `aligned/` of the run folder.

    ConfigError with the run's own names of what is wrong, so that it can be said before anything is trained.
    """
    if not settings.then:
        return None
    named = {"seed": settings.seed} | underscored(settings.align)
    if taken := [name for name in ("model_name_or_path", "output_dir") if name in named]:
        raise ConfigError(f"align.{name}: decided by output_dir of the run. Leave it out here." for name in taken)
    places = {"model_name_or_path": settings.output_dir, "output_dir": str(Path(settings.output_dir) / "aligned")}
    try:
        return read_settings({**named, **places}, AlignSettings)
    except ConfigError as error:
        raise ConfigError(f"align.{problem}" for problem in error.problems) from error
