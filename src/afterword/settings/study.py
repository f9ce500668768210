"""Settings of `afterword study`, checked before anything runs."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import field_validator

from afterword.errors import nearest
from afterword.method_options import KINDS, StudyKind
from afterword.named_models import NAMES
from afterword.settings.base import Settings, key_values, listed, setting
from afterword.settings.workers import GPUS_EACH, PROCESSES, RAY, RETRIES, ray_problems, workers_of
from afterword.settings.writing import GENERATOR, GENERATOR_MODEL, GENERATOR_REQUESTS, WRITTEN_FOLDER, writing_problems
from afterword.study.plan import NEW_TOKENS, PART_TOKENS, TEMPERATURE, TOKENS_PER_TOKEN, TOP_P, StudyPlan
from afterword.types import Sampling

_NAMED = ", ".join(KINDS)


class StudySettings(Settings):
    """Everything that `afterword study` can be told."""

    model_name_or_path: str = setting("", "What", "Model that is to be taught: a folder, GGUF file, hub id or name.")
    documents: tuple[str, ...] = setting((), "What", "Files, folders, globs or data-set ids.")
    kinds: tuple[StudyKind, ...] | None = setting(None, "What", f"Kinds of text (default: all of {_NAMED}).")
    tokens_per_token: float | None = setting(
        None,
        "How much",
        f"Tokens written for a token of a document, in equal parts of every kind (default: {TOKENS_PER_TOKEN:g}). "
        "A document gets at least one text of each.",
        gt=0,
        le=1000,
    )
    amounts: dict[str, Any] = setting({}, "How much", "The same for each kind by itself: rephrase=2,questions=1.")
    new_tokens: int = setting(NEW_TOKENS, "How much", "Most tokens of a text; less where the document is short.", ge=16)
    part_tokens: int = setting(
        PART_TOKENS, "How much", "A longer document is studied in parts of so many tokens.", ge=32
    )
    sampling_temperature: float = setting(
        TEMPERATURE, "Writing", "Temperature at which texts are drawn. 0: the likeliest token, always.", ge=0
    )
    top_p: float = setting(
        TOP_P, "Writing", "Only the likeliest tokens are drawn, up to this probability together.", gt=0, le=1
    )
    precision: Literal["auto", "float32", "bf16"] = setting(
        "auto", "Writing", "Of weights and products. auto: bf16 where the model is stored in it and it is faster."
    )
    generator: str | None = GENERATOR
    generator_model: str | None = GENERATOR_MODEL
    generator_requests: int = GENERATOR_REQUESTS
    written_folder: str | None = WRITTEN_FOLDER
    processes: int | None = PROCESSES
    ray: str | None = RAY
    gpus_each: float | None = GPUS_EACH
    retries: int = RETRIES
    grounded: bool = setting(
        True, "Writing", "Drop a text whose numbers and names do not stand in what it was written from."
    )
    seed: int = setting(0, "Writing", "Random seed: draws of texts, and which names are linked.", ge=0)
    text_column: str | None = setting(None, "Documents", "Column that holds the text (default: detected).")
    id_column: str | None = setting(None, "Documents", "Column that holds the document's id.")
    title_column: str | None = setting(None, "Documents", "Column that holds the title.")
    date_column: str | None = setting(None, "Documents", "Column that holds the date.")
    source_column: str | None = setting(None, "Documents", "Column that holds the source.")
    language: str = setting("en", "Documents", "Language code, by which sentences are found.")
    max_documents: int | None = setting(None, "Documents", "Most documents that are read.", ge=1)
    output_dir: str = setting("", "What", "Folder of the texts.")

    @field_validator("amounts", mode="before")
    @classmethod
    def _several_in_one_text(cls, value: Any) -> Any:
        """On the command line `rephrase=2,questions=1` is two of them."""
        return key_values(listed(value)) if isinstance(value, str | list | tuple) else value

    def relations(self) -> Iterator[str]:
        """Problems between settings."""
        if not self.model_name_or_path:
            yield f"model_name_or_path: missing, and it has no default. Give a model folder or hub id, or {NAMES[-1]}."
        if not self.documents:
            yield "documents: missing, and there is no default. Give files, folders, globs or data-set ids."
        if not self.output_dir:
            yield "output_dir: missing, and it has no default. Give the folder of the texts with -o."
        if self.kinds == ():
            yield f"kinds: there is none. Give some of {_NAMED}, or leave it out for all."
        yield from self._amount_problems()
        yield from ray_problems(self)
        yield from writing_problems(self.generator, self.generator_model, workers_of(self))

    def _amount_problems(self) -> Iterator[str]:
        for kind, amount in self.amounts.items():
            if kind not in KINDS:
                yield f"amounts.{kind}: there is no such kind. {nearest(kind, KINDS)}Known: {_NAMED}."
            elif isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount <= 1000:
                yield f"amounts.{kind}: must be a number above 0 and at most 1000, got {amount!r}."
        for name in ("kinds", "tokens_per_token") if self.amounts else ():
            if getattr(self, name) is not None:
                yield f"{name}: says the same as amounts, which names kinds and how much of each. Give one of the two."

    def shares(self) -> dict[StudyKind, float]:
        """By kind, tokens that are written for a token of a document."""
        if self.amounts:
            return {kind: float(self.amounts[kind]) for kind in KINDS if kind in self.amounts}
        return StudyPlan.equal_parts(self.kinds or KINDS, self.tokens_per_token or TOKENS_PER_TOKEN)

    def plan(self) -> StudyPlan:
        """What is to be written."""
        sampling = Sampling(max_new_tokens=self.new_tokens, temperature=self.sampling_temperature, top_p=self.top_p)
        return StudyPlan(
            amounts=self.shares(),
            sampling=sampling,
            seed=self.seed,
            part_tokens=self.part_tokens,
            language=self.language,
            grounded=self.grounded,
        )
