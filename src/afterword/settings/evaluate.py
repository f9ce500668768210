"""Settings of `afterword evaluate`, checked before anything runs."""

from typing import Literal

from afterword.settings.base import Settings, setting

BRIEFLY = "Answer briefly."
"""Asks a chat model for an answer that can be compared."""


class EvaluateSettings(Settings):
    """Everything that `afterword evaluate` can be told."""

    documents: tuple[str, ...] = setting((), "What", "Documents that were trained (default: those of the run).")
    held_out: tuple[str, ...] = setting((), "What", "Documents of the same kind that were not trained.")
    questions: str | None = setting(None, "What", "JSON lines of questions: question, answer(s), choices, document.")
    question_instruction: str = setting(
        BRIEFLY, "What", "Text after every question to a chat model; '' for none. A model without a template gets none."
    )
    suite: str | None = setting(None, "What", "JSON-lines file of items with exact checks, or the name of a suite.")
    split: Literal["dev", "test", "both"] = setting("both", "What", "Which items of the suite: dev, test or both.")
    suite_cache: str | None = setting(
        None, "What", "Folder that keeps the answers of the model before, for other runs."
    )
    general: tuple[str, ...] = setting((), "What", "General text that must not be forgotten.")
    tasks: tuple[str, ...] = setting((), "What", "Tasks of lm-evaluation-harness: names or YAML files.")
    tasks_path: str | None = setting(None, "What", "Folder with more tasks.")
    measures: tuple[str, ...] = setting((), "What", "Measures of others: installed names, or package.module:NAME.")
    reference: str | None = setting(None, "What", "The model before; the run's base if not given.")
    max_documents: int = setting(200, "How much", "Most documents drawn from each set.", ge=1)
    max_questions: int = setting(200, "How much", "Most questions drawn.", ge=1)
    max_items: int | None = setting(
        None, "How much", "Most items of the suite, drawn from each skill by its share.", ge=1
    )
    answer_tokens: int = setting(64, "How much", "Most tokens of an answer to an item of the suite.", ge=1)
    tasks_limit: int | None = setting(None, "How much", "Most documents of a task.", ge=1)
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
