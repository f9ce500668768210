"""Settings of `afterword evaluate`, checked before anything runs."""

from typing import Literal

from afterword.settings.base import Settings, setting

BRIEFLY = "Answer briefly."
"""Asks a chat model for an answer that can be compared."""


class EvaluateSettings(Settings):
    """Everything that `afterword evaluate` can be told."""

    documents: tuple[str, ...] = setting((), "What", "Trained documents; the run's own if not given.")
    held_out: tuple[str, ...] = setting((), "What", "Documents that were not trained.")
    questions: str | None = setting(None, "What", "JSON lines: question, answer(s), choices, document.")
    question_instruction: str = setting(
        BRIEFLY,
        "What",
        "Stands behind every question to a chat model; '' for none, as it always is without a template.",
    )
    suite: str | None = setting(None, "What", "JSON lines of items with exact checks, or an embedded suite's name.")
    split: Literal["dev", "test", "both"] = setting("both", "What", "Items of the suite: dev, test or both.")
    suite_cache: str | None = setting(None, "What", "Folder where the reference's answers are kept for other runs.")
    general: tuple[str, ...] = setting((), "What", "Text that must not be forgotten.")
    tasks: tuple[str, ...] = setting((), "What", "Tasks of lm-evaluation-harness: names or YAML files.")
    tasks_path: str | None = setting(None, "What", "Folder with more tasks.")
    measures: tuple[str, ...] = setting((), "What", "Measures of others: installed names, or package.module:NAME.")
    reference: str | None = setting(None, "What", "The model before; the run's base if not given.")
    max_documents: int = setting(200, "How much", "Documents drawn from each set.", ge=1)
    max_questions: int = setting(200, "How much", "Questions drawn.", ge=1)
    max_items: int | None = setting(None, "How much", "Items drawn from the suite, each skill by its share.", ge=1)
    answer_tokens: int = setting(64, "How much", "Tokens of an answer to an item of the suite.", ge=1)
    tasks_limit: int | None = setting(None, "How much", "Documents of a task.", ge=1)
    samples: int = setting(64, "How much", "Samples of the reference that drift is measured on.", ge=0)
    sample_tokens: int = setting(64, "How much", "Tokens of a sample, of either turn of a chat.", ge=8)
    answered_samples: int = setting(10, "How much", "Samples answered before and after.", ge=0)
    precision: Literal["auto", "float32", "bf16"] = setting(
        "auto", "How much", "Of weights and products. auto: bf16 where models are stored in it and it is faster."
    )
    max_length: int | None = setting(None, "How much", "Context in tokens.", ge=16)
    micro_batch_tokens: int = setting(4096, "How much", "Tokens in memory at once.", ge=16)
    language: str = setting("en", "What", "Language code for finding sentences.")
    seed: int = setting(0, "How much", "Draws of documents, questions, targets and samples.", ge=0)
