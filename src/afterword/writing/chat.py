"""Turns as the text that a model reads: the same for what is asked of it and for what is trained of its replies."""

from collections.abc import Sequence
from typing import Any

from afterword.data import as_words
from afterword.errors import CheckpointError
from afterword.models.generation import by_template

Turn = tuple[str, str]
"""(role, content)."""


def as_conversation(tokenizer: Any, turns: Sequence[Turn], *, thinking: bool | None = False) -> str:
    """The turns by the model's chat template, up to where its reply begins; blank lines between them without one.

    What a turn writes out is never a control token. A template that has no system turn gets its words in the first
    turn of the user. CheckpointError where the template takes neither. `thinking`: see `by_template`.
    """
    worded = [(role, as_words(tokenizer, content)) for role, content in turns]
    if not tokenizer.chat_template:
        return "".join(f"{content}\n\n" for _, content in worded)
    try:
        return by_template(tokenizer, *worded, reply_follows=True, thinking=thinking)
    except CheckpointError:
        if len(worded) < 2 or worded[0][0] != "system":
            raise
    (_, system), (role, content), *rest = worded
    whole = (role, f"{system}\n\n{content}")
    return by_template(tokenizer, whole, *rest, reply_follows=True, thinking=thinking)
