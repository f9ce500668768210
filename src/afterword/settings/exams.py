"""Settings of exams: published sets of multiple-choice questions, each answered several times, with a vote.

The one rule: what is not said is as the paper has it (arXiv:2602.16093, its evaluation; METHODS §5).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import field_validator

from afterword.errors import ConfigError, nearest
from afterword.settings.base import Settings, key_values, setting, underscored, validated

ExamName = Literal["kup", "bioasq"]
_HOW, _ROWS = "How", "Rows"


class ExamSettings(Settings):
    """Everything that an exam can be told, with what is common to both."""

    file: str = setting("", "What", "File or data-set id of the questions: .jsonl, .json, .csv or .parquet.")
    max_items: int | None = setting(None, "What", "Most questions, drawn by the seed of evaluate.", ge=1)
    exclude: tuple[str, ...] = setting((), "What", "Ids of questions that are not asked; on the command line 'ID ID'.")

    id_column: str | None = setting(None, _ROWS, "Column of the id; null: the number of the row.")
    subject_column: str | None = setting(None, _ROWS, "Column of what a question is about.")
    question_column: str = setting("question", _ROWS, "Column of the question.")
    options_column: str | None = setting(None, _ROWS, "Column of the list of options; null: in the question itself.")
    answer_column: str = setting("answer", _ROWS, "Column of the right option: its letter, or its number from 0 on.")

    prompt: Literal["raw", "chat"] = setting("chat", _HOW, "raw: as plain text. chat: by the chat template.")
    prompt_file: str | None = setting(None, _HOW, "File with a prompt of your own; see the guide.")
    enable_thinking: bool | None = setting(None, _HOW, "Told to the chat template; null: as it has it by itself.")
    shuffle_seed: int | None = setting(None, _HOW, "Seed by which options are shuffled; null: as they stand.")
    samples: int = setting(5, _HOW, "Answers to each question, which then vote.", ge=1, le=1000)
    temperature: float = setting(1.0, _HOW, "Temperature of the answers. 0: the likeliest token, one answer.", ge=0)
    top_p: float = setting(1.0, _HOW, "Only the likeliest tokens, up to this probability together.", gt=0, le=1)
    new_tokens: int = setting(1024, _HOW, "Most tokens of an answer.", ge=1)
    context: int | None = setting(None, _HOW, "Most tokens of prompt and answer; null: what the model reads.", ge=16)
    stop: tuple[str, ...] = setting((), _HOW, "Texts at which an answer ends.")
    reading: Literal["authors", "tags"] = setting(
        "authors", _HOW, "Where an answer is looked for: in its tags alone (tags), or then as the authors do (authors)."
    )
    tie: Literal["first", "wrong"] = setting(
        "wrong", _HOW, "Of a tie: it counts as the first option (first), or is wrong."
    )

    @field_validator("exclude", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        """Numbers as text; several ids in one text between blanks."""
        several = isinstance(value, list | tuple)
        given = cast("Sequence[object]", value) if several else [] if value is None else [value]
        return tuple(part for item in given for part in str(item).split())

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        if not self.file:
            yield "file: missing, and it has no default. Give a file or data-set id of the questions."
        if self.enable_thinking is not None and self.prompt == "raw":
            yield "enable_thinking: is told to the chat template, and prompt is raw. Leave one of them out."


AS_PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "kup": {
        "id_column": "entity_id",
        "subject_column": "entity",
        "exclude": ("4641", "7759", "1868", "234"),
        "prompt": "raw",
        "new_tokens": 16_000,
        "context": 2048,
        "tie": "first",
    },
    "bioasq": {
        "options_column": "options",
        "answer_column": "correct_index",
        "prompt": "chat",
        "shuffle_seed": 123,
        "top_p": 0.9,
        "stop": ("\n\nQuestion:", "\n\n<|assistant|>", "\n\n<|user|>"),
    },
}
"""What each exam's authors chose, beside the defaults. The four entities of KUP are those whose questions they call
malformed."""


def exams_of(given: Mapping[str, Any]) -> dict[str, ExamSettings]:
    """The exams by name, with what their authors chose. Every problem of all of them is in the one ConfigError."""
    problems, exams = list[str](), dict[str, ExamSettings]()
    for name, told in given.items():
        if name not in AS_PUBLISHED:
            known = f"{nearest(name, AS_PUBLISHED)}Known: {', '.join(AS_PUBLISHED)}."
            problems.append(f"exams.{name}: there is no such exam. {known}")
            continue
        try:
            exams[name] = validated({**AS_PUBLISHED[name], **as_mapping(told)}, ExamSettings)
        except (ConfigError, ValueError) as error:
            found = error.problems if isinstance(error, ConfigError) else (f"{error}.",)
            problems += [f"exams.{name}.{problem}" for problem in found]
    if problems:
        raise ConfigError(problems)
    return exams


def as_mapping(given: Any) -> dict[str, Any]:
    """An exam as a mapping, from one or from `FILE,samples=…,temperature=…`."""
    if isinstance(given, Mapping):
        return underscored(cast("Mapping[Any, Any]", given))
    file, *pairs = str(given).split(",")
    return {"file": file, **key_values(pairs)}
