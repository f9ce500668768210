"""Settings of `afterword evaluate`, checked before anything runs."""

import re
from collections.abc import Iterator
from typing import Any, Literal, cast

from pydantic import field_validator

from afterword.errors import ConfigError
from afterword.settings.base import Settings, later, setting
from afterword.settings.exams import as_mapping, exams_of

BRIEFLY = "Answer briefly."
"""Asks a chat model for an answer that can be compared."""

RETRIEVAL = ("retrieve", "retrieve_from", "excerpt_tokens")
"""Settings that change nothing where nothing is retrieved."""


class EvaluateSettings(Settings):
    """Everything that `afterword evaluate` can be told."""

    documents: tuple[str, ...] = setting((), "What", "Documents that were trained (default: those of the run).")
    held_out: tuple[str, ...] = setting((), "What", "Documents of the same kind that were not trained.")
    questions: str | None = setting(None, "What", "JSON lines of questions: question, answer(s), choices, document.")
    question_instruction: str = setting(
        BRIEFLY, "What", "Text after every question to a chat model; '' for none. A model without a template gets none."
    )
    suite: str | None = setting(
        None, "What", "JSON-lines files of items with exact checks, or names of suites (everyday), with commas."
    )
    split: Literal["dev", "test", "both"] = setting(
        "both",
        "What",
        "Which items of the suite and of tasks, and which questions that have a split: dev, test or both.",
    )
    suite_cache: str | None = setting(
        None, "What", "Folder that keeps what the model before answers, also to tasks, for other runs."
    )
    exams: dict[str, Any] | None = later(
        "What", "KUP or BioASQ: kup=FILE, bioasq=FILE, and what is other than published: kup=FILE,samples=3."
    )
    retrieve: int | None = setting(
        None, "What", "Also ask with so many excerpts of the documents before each question, found by it (BM25).", ge=1
    )
    retrieve_from: tuple[str, ...] = setting((), "What", "More documents to search beside those that were trained.")
    general: tuple[str, ...] = setting((), "What", "General text that must not be forgotten.")
    tasks: tuple[str, ...] = setting(
        (), "What", "Benchmarks of lm-evaluation-harness: names, presets, YAML files, or folders of them."
    )
    tasks_path: str | None = setting(None, "What", "Folder with more tasks, which the preset retention-offline runs.")
    measures: tuple[str, ...] = setting((), "What", "Measures of others: installed names, or package.module:NAME.")
    reference: str | None = setting(None, "What", "The model before; the run's base if not given.")
    max_documents: int = setting(200, "How much", "Most documents drawn from each set.", ge=1)
    max_questions: int = setting(200, "How much", "Most questions drawn.", ge=1)
    max_items: int | None = setting(
        None, "How much", "Most items of the suite, drawn from each skill by its share.", ge=1
    )
    excerpt_tokens: int = setting(128, "How much", "Most tokens of an excerpt that a question can find.", ge=16)
    answer_tokens: int = setting(64, "How much", "Most tokens of an answer to an item of the suite.", ge=1)
    tasks_limit: int | None = setting(
        None, "How much", "Most items of a task, drawn by the seed, half of them dev and half test.", ge=1
    )
    samples: int = setting(64, "How much", "Texts that the model before writes, on which drift is measured.", ge=0)
    sample_tokens: int = setting(64, "How much", "Tokens of such a text; of a chat model, of either turn.", ge=8)
    answered_samples: int = setting(10, "How much", "Of these, how many the report shows before and after.", ge=0)
    precision: Literal["auto", "float32", "bf16"] = setting(
        "auto", "How much", "Of weights and products. auto: bf16 where the models are stored in it and it is faster."
    )
    models_at_once: Literal["auto", "both", "one"] = setting(
        "auto",
        "Machines",
        "Of the models before and after, how many are in memory. auto: both where they fit, else one, loaded anew for "
        "each of its turns.",
        weights=False,
    )
    device_map: Literal["auto"] | None = setting(
        None,
        "Machines",
        "auto: spread a model that is larger than a GPU over all of them, main memory and disk.",
        weights=False,
    )
    max_length: int | None = setting(None, "How much", "Context in tokens (default: that of the model).", ge=16)
    micro_batch_tokens: int = setting(4096, "How much", "Tokens computed at once.", ge=16)
    language: str = setting("en", "What", "Language code, by which sentences are found.")
    seed: int = setting(0, "How much", "Random seed: draws of documents, questions, targets and samples.", ge=0)

    apply_chat_template: bool | None = later(
        "Tasks", "Whether tasks are asked through the chat template (default: where there is one)."
    )
    enable_thinking: bool | None = later(
        "Tasks", "Whether the model thinks before it answers, where its chat template can say so."
    )
    max_gen_toks: int | None = later("Tasks", "Most tokens that are written (default: as each task has it).", ge=1)
    gen_kwargs: dict[str, Any] | None = later(
        "Tasks", "How tasks that write draw their text: do_sample=true,temperature=0.6 (default: as each has it)."
    )
    tasks_batch_size: Literal["auto"] | int = setting(
        "auto", "Tasks", "Texts that are read or written at once; auto: by micro_batch_tokens."
    )
    tasks_backend: Literal["hf", "vllm"] = later(
        "Tasks", "What runs the model. vllm: where it is installed, on a GPU.", exact=("hf",), default="hf"
    )
    confirm_run_unsafe_code: bool = setting(
        False, "Tasks", "Consent to run code that the model wrote, as humaneval does, on this machine."
    )

    @field_validator("gen_kwargs", mode="before")
    @classmethod
    def _between_commas(cls, value: Any) -> Any:
        """Also as the harness has it: several in one text."""
        if not isinstance(value, str | list | tuple):
            return value
        texts = [value] if isinstance(value, str) else cast("list[Any]", value)
        return [part for text in texts for part in re.split(r",(?=\w+=)", str(text))]

    @field_validator("tasks_batch_size", mode="after")
    @classmethod
    def _one_at_least(cls, value: Any) -> Any:
        if value != "auto" and value < 1:
            raise ValueError("must be auto, or a whole number from 1 on")
        return value

    @field_validator("exams", mode="after")
    @classmethod
    def _told_apart(cls, exams: dict[str, Any] | None) -> dict[str, Any] | None:
        """Each as a mapping, so that its file is known by its content."""
        return exams and {name: as_mapping(given) for name, given in exams.items()}

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        about = ("apply_chat_template", "enable_thinking", "max_gen_toks", "gen_kwargs", "confirm_run_unsafe_code")
        if not self.tasks and (read := [name for name in about if getattr(self, name) not in (None, False)]):
            yield f"{read[0]}: is read where tasks are asked for. Add --tasks, or leave it out."
        if self.enable_thinking is not None and self.apply_chat_template is False:
            yield "enable_thinking: is said through the chat template, and apply_chat_template is false. Drop one."
        try:
            exams_of(self.exams or {})
        except ConfigError as error:
            yield from error.problems
