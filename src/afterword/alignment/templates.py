"""Chat templates, and what they make of a dialogue: token ids, and where the response begins.

The one rule: the response is what a template writes after the prompt that a model is asked with. A template that
does not write the prompt the same way alone and before a response is refused by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError

from afterword.corpus import Dialogue, plain_text
from afterword.corpus.dialogues import Messages
from afterword.data import special_tokens
from afterword.errors import ConfigError, nearest

# A turn ends with the tokenizer's own EOS, so that generation stops there without a setting.
TEMPLATES: Mapping[str, str] = {
    "plain": (
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}"
        "{{ 'Answer: ' + message['content'] }}{{ eos_token }}{% if not loop.last %}{{ '\\n' }}{% endif %}"
        "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}"
        "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}"
        "{% if not loop.first %}{{ '\\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{{ eos_token }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
"""Templates for a base model. chatml is ChatML where `<|im_end|>` is the EOS, and close to it elsewhere."""
_OWN = "the tokenizer's own"
_PROBE = ({"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."})


class RefusedDialogue(ConfigError):  # noqa: N818  the name says what happened
    """A dialogue that the chat template does not write, such as one with a turn that it does not know."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A prompt with its response."""

    ids: np.ndarray  # [t] int64
    start: int
    """The first token of the response: where the ids stop to be those of the prompt alone. At least 1."""
    joined: bool
    """Whether the response's first characters are in one token with the prompt's last."""


def use_template(tokenizer: Any, asked: str | None) -> str:
    """Give a tokenizer the template that was asked for: its own, one of TEMPLATES, or a file's. Its name.

    ConfigError where there is none, or where it does not show a prompt and a response as they are.
    """
    known = f"Give one with --chat-template: {', '.join(TEMPLATES)}, or a file."
    if not asked and not tokenizer.chat_template:
        raise ConfigError(f"chat_template: missing, and the tokenizer has none. {known}")
    if asked:
        tokenizer.chat_template = _template(tokenizer, asked)
    name = asked or _OWN
    chat_tokens(tokenizer, name, _PROBE[:1], _PROBE[1]["content"])
    prompt, whole = (_render(tokenizer, name, turns, tokenize=False) for turns in (_PROBE[:1], _PROBE))
    for turn, written in zip(_PROBE, (prompt, whole[len(prompt) :]), strict=True):
        if turn["content"] not in written:
            problem = f"{name!r} writes no {turn['role']}'s words where they belong, but {whole!r:.200}"
            raise ConfigError(f"chat_template: {problem}. {known}")
    return name


def _template(tokenizer: Any, asked: str) -> str:
    if asked in TEMPLATES:
        # Where texts begin with a BOS, conversations do.
        begins = special_tokens(tokenizer, "auto", "document").bos_ids
        return ("{{ bos_token }}" if begins else "") + TEMPLATES[asked]
    try:
        return Path(asked).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = f"{nearest(asked, TEMPLATES)}Known are {', '.join(TEMPLATES)}"
        raise ConfigError(f"chat_template: {asked!r} is no template and no file. {known}, or a file.") from error


def chat_tokens(tokenizer: Any, name: str, prompt: Messages, response: str) -> Tokens:
    """A prompt and its response as the chat template writes them, the end of the turn included.

    The same ids as trl makes of a conversational row. ConfigError, with the template's name, where the response is
    empty, or where the text of the prompt is not the beginning of the whole.
    """
    turns = [*prompt, {"role": "assistant", "content": response}]
    asked, whole = (_render(tokenizer, name, each, tokenize=True) for each in (prompt, turns))
    tokens = _split(asked, whole)
    if tokens.start == len(whole):
        raise ConfigError(f"chat_template: {name!r} writes nothing for the response {response!r:.60}. Give another.")
    if tokens.joined:
        begun, text = (_render(tokenizer, name, each, tokenize=False) for each in (prompt, turns))
        if not text.startswith(begun):
            problem = f"{name!r} writes the prompt {begun[-60:]!r} in another way where a response follows"
            raise ConfigError(f"chat_template: {problem}. Give one that begins the same way.")
    return tokens


def plain_tokens(tokenizer: Any, dialogue: Dialogue, joiner: str = "\n\n") -> Tokens:
    """The same without a template: what stage 1 reads with this joiner, BOS as the tokenizer adds it and no EOS."""
    whole = plain_text(dialogue, joiner)
    texts = (whole[: len(whole) - len(dialogue.response)], whole)
    return _split(*(tokenizer(text, verbose=False)["input_ids"] for text in texts))


def _split(prompt: list[int], whole: list[int]) -> Tokens:
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
    return Tokens(np.array(whole, np.int64), max(1, shared), shared < len(prompt))


def _render(tokenizer: Any, name: str, turns: Any, *, tokenize: bool) -> Any:
    asks = turns[-1]["role"] != "assistant"
    try:
        rendered = tokenizer.apply_chat_template(
            list(turns), tokenize=tokenize, add_generation_prompt=asks, return_dict=tokenize
        )
    except (TemplateError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RefusedDialogue(f"chat_template: {name!r} cannot write a dialogue ({reason}). Give another.") from error
    return rendered["input_ids"] if tokenize else rendered
