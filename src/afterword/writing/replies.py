"""A request in tokens, and tokens as a reply: the same whatever program makes the one of the other."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from afterword.errors import ConfigError
from afterword.models.generation import prompt_ids
from afterword.types import Request, Written
from afterword.writing.chat import as_conversation

_CAP_STEP = 256
"""Where the context ends before `max_new_tokens`, room is counted in such steps, so that prompts of about the same
length are written together."""
_THOUGHTS = (re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL), re.compile(r"\A.*</think>", re.DOTALL))
"""In the text; and from its beginning, where the template opened them in the prompt."""


def prompt_of(tokenizer: Any, request: Request) -> str:
    """What the model reads: the turns by its template, or the text; with other turns, both conversations."""
    if request.other_turns:
        return f"\n[of the tokens {1 - request.share:g} after:]\n".join(_both(tokenizer, request))
    return as_conversation(tokenizer, request.turns) if request.turns else request.text


def unmixed(generator: str) -> ConfigError:
    """That a program of its own cannot write what is drawn token by token after two conversations."""
    problem = f"generator: {generator} writes whole texts, and this method chooses every token by what was read before"
    return ConfigError(f"{problem}. Leave it out, or give a model that runs here.")


def _both(tokenizer: Any, request: Request) -> Iterator[str]:
    return (as_conversation(tokenizer, turns) for turns in (request.turns, request.other_turns))


def prompt_tokens(tokenizer: Any, request: Request) -> list[int]:
    """The same in tokens, with BOS where the tokenizer begins a text with one, once. Without other turns."""
    prompt = prompt_of(tokenizer, replace(request, other_turns=()))
    if tokenizer.chat_template is None or request.turns or prompt.startswith(tokenizer.bos_token or "\0"):
        return prompt_ids(tokenizer, prompt)
    ids = list[int](tokenizer(prompt, verbose=False)["input_ids"])
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def room_of(request: Request, prompt: Sequence[int], limit: int | None) -> int:
    """New tokens that a context of `limit` has room for behind the prompt, at most what is asked for; 0: none."""
    asked = request.sampling.max_new_tokens
    room = asked if limit is None else max(0, min(asked, limit - len(prompt)))
    return room if room == asked or room < _CAP_STEP else room - room % _CAP_STEP


def room_for(tokenizer: Any, request: Request, limit: int) -> int:
    """The same of a request."""
    return room_of(request, prompt_tokens(tokenizer, request), limit)


def seed_of(tokenizer: Any, request: Request) -> int:
    """256 bits that follow from what is asked, how, and the request's seed; from nothing else."""
    content = json.dumps([prompt_of(tokenizer, request), asdict(request.sampling), request.seed])
    return int.from_bytes(hashlib.sha256(content.encode()).digest())


def reply_of(tokenizer: Any, request: Request, ids: Sequence[int], ends: Collection[int]) -> Written:
    """The text of new tokens, the one that ends it the last of them. What goes on from a text keeps its white space."""
    ended = bool(ids) and ids[-1] in ends
    text = tokenizer.decode(list(ids[:-1] if ended else ids), skip_special_tokens=True)
    return Written(without_thoughts(text).strip() if request.turns else text, ended)


def without_thoughts(text: str) -> str:
    """What a model says after it has thought aloud; nothing where it did not come to an end of that.

    >>> without_thoughts("<think>Hm.</think>Yes.")
    'Yes.'
    """
    for thoughts in _THOUGHTS:
        text = thoughts.sub("", text)
    return text
