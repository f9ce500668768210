"""Instructions and preferences in: a row of any usual form becomes a dialogue, and a dialogue plain text.

A dialogue ends with the response to be learned; a preference has the worse response beside it. Only text is read.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any, Literal, Self

from afterword.storage.files import BadRowError, problem_of

Kind = Literal["documents", "instructions", "preferences"]
"""What the rows of a source are: texts, prompts with a response, or prompts with a better and a worse response."""

Responses = Literal["chosen", "both"]
"""Which responses of a preference are read: METHODS §2 leaves it open, and the chosen one alone is our choice."""

# The columns of each form, in the order of the conversation. The first form that is there whole is taken.
_FORMS: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "instructions": (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output")),
    "preferences": (
        ("prompt", "chosen", "rejected"),
        ("conversations", "chosen", "rejected"),
        ("messages", "chosen", "rejected"),
        ("chosen", "rejected"),
    ),
}
# Who speaks in a column that holds a text. A column that is not here holds messages only.
_SPEAKERS = {"system": "system", "prompt": "user", "instruction": "user"}
_SPEAKERS |= dict.fromkeys(("completion", "output", "chosen", "rejected"), "assistant")
# The second keys and the names human and gpt are ShareGPT's.
_MESSAGE_KEYS = (("role", "content"), ("from", "value"))
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}

TURN_COLUMNS = frozenset({"messages", "conversations", "prompt", "completion", "chosen", "rejected"})
"""Columns that may hold a list of messages, which is no list of rows."""

Messages = tuple[Mapping[str, str], ...]
"""Each {"role": system, user or assistant, "content": a text}."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation whose last message is the assistant's response."""

    messages: Messages
    rejected: str | None = None
    """The worse response of a preference pair. None for an instruction."""

    @property
    def prompt(self) -> Messages:
        """All messages but the response."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """Text of the last message: what is learned, the chosen one of a pair."""
        return self.messages[-1]["content"]

    def apart(self) -> tuple[Self, ...]:
        """A preference as two dialogues, the one with the chosen response first; an instruction as it is."""
        if self.rejected is None:
            return (self,)
        worse = {**self.messages[-1], "content": self.rejected}
        return tuple(replace(self, messages=(*self.prompt, last), rejected=None) for last in (self.messages[-1], worse))

    def to_json(self) -> str:
        """One line that is the same for equal dialogues."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The dialogue that `to_json` wrote."""
        parts = json.loads(text)
        return cls(tuple(parts["messages"]), parts["rejected"])


def plain_text(dialogue: Dialogue, joiner: str = "\n\n") -> str:
    """All messages without roles or template, the chosen response only: q ⊕ r of Mix-CPT, joined by `joiner`."""
    return joiner.join(message["content"] for message in dialogue.messages)


def dialogue_of(row: Mapping[str, Any], kind: Kind) -> Dialogue:
    """The dialogue in a row of `kind`, which is not documents. Raises a BadRowError that says what is wrong with it.

    Instructions: {messages}, {conversations} of ShareGPT, {prompt, completion}, or {instruction, output} of Alpaca,
    with or without input. Preferences: {prompt | conversations | messages, chosen, rejected}, or {chosen, rejected}
    that both begin with the prompt. All with or without system. A null is a column that is not there.
    """
    given = {column: value for column, value in row.items() if value is not None}
    form = _form_of(given, kind)
    messages, rejected = (_instruction(given, form), None) if kind == "instructions" else _preference(given, form)
    system = _messages(given, "system") if "system" in given else ()
    # Some data sets have the system's message in the conversation and beside it.
    messages = messages if messages[: len(system)] == system else system + messages
    _check(messages, rejected)
    return Dialogue(messages, rejected)


def _form_of(given: Mapping[str, Any], kind: Kind) -> tuple[str, ...]:
    """The form whose columns are all there, or an error that says what the nearest one lacks."""
    forms = _FORMS[kind]
    lacking = {form: [column for column in form if column not in given] for form in forms}
    # The nearest has the most columns there; with equal numbers, the fewest are missing.
    nearest = min(forms, key=lambda form: (len(lacking[form]) - len(form), len(lacking[form])))
    if complete := [form for form in forms if not lacking[form]]:
        return complete[0]
    there = ", ".join(map(str, given))[:250] or "none"
    known = "; ".join(" + ".join(form) for form in forms)
    missing = f"column {' and '.join(lacking[nearest])} missing (there: {there})"
    raise BadRowError("broken", f"{missing}. {kind.capitalize()} have the columns {known}")


def _instruction(given: Mapping[str, Any], form: tuple[str, ...]) -> Messages:
    if form == ("instruction", "output"):
        if given.get("history"):
            raise BadRowError("broken", "history beside an instruction is not read", "Write the turns as messages")
        asked = [_text(given[column], column) for column in ("instruction", "input") if column in given]
        given = {**given, "instruction": "\n\n".join(text for text in asked if text.strip())}
    return tuple(message for column in form for message in _messages(given, column))


def _preference(given: Mapping[str, Any], form: tuple[str, ...]) -> tuple[Messages, str]:
    """Messages up to the chosen response, and the rejected response."""
    *before, better, worse = (_messages(given, column) for column in form)
    pairs = zip(better[:-1], worse[:-1], strict=False)
    shared = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    for name, turns in (("chosen", better), ("rejected", worse)):
        if [turn["role"] for turn in turns[len(shared) :]] != ["assistant"]:
            rule = "one response of the assistant after the prompt, or after the beginning that both share"
            raise BadRowError("broken", f"{name} must be {rule}")
    # Some data sets have the prompt in a column and again before both responses.
    asked = before[0] if before else ()
    prompt = shared if all(message in shared for message in asked) else asked + shared
    return (*prompt, better[-1]), worse[-1]["content"]


def _messages(given: Mapping[str, Any], column: str) -> Messages:
    """What a column says: a text is one message, an empty message of the system none."""
    value = given[column]
    if isinstance(value, str) and column in _SPEAKERS:
        value = {"role": _SPEAKERS[column], "content": value}
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, (list, tuple)):
        raise BadRowError("broken", f"{column} must be a list of messages, not {value!r:.40}")
    messages = tuple(_message(each, column) for each in listed)
    return tuple(each for each in messages if each["role"] != "system" or each["content"].strip())


def _message(value: Any, column: str) -> Mapping[str, str]:
    keys = value if isinstance(value, Mapping) else {}
    for speaker, said in _MESSAGE_KEYS:
        if keys.get(speaker) is not None and said in keys:
            role = _ROLES.get(str(keys[speaker]))
            if role is None:
                problem = f"{keys[speaker]!r:.40} in {column} is no known role. Known are {', '.join(_ROLES)}"
                raise BadRowError("broken", problem)
            return {"role": role, "content": _text(keys[said], column)}
    rule = " or ".join(f"{speaker} and {said}" for speaker, said in _MESSAGE_KEYS)
    raise BadRowError("broken", f"a message in {column} must have {rule}, not {value!r:.40}")


def _text(content: Any, column: str) -> str:
    """A text, also one in parts. What no file can hold is refused here, before it is part of a whole."""
    if isinstance(content, (list, tuple)):
        content = "".join(_part(part, column) for part in content)
    if not isinstance(content, str):
        raise BadRowError("broken", f"what is said in {column} must be a text, not {content!r:.40}")
    if (problem := problem_of(content)) and problem.reason == "undecodable":
        raise problem
    return content


def _part(part: Any, column: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    found = f"a part of type {part.get('type')!r:.40}" if isinstance(part, Mapping) else f"{part!r:.40}"
    raise BadRowError("broken", f"what is said in {column} holds {found}, and only parts of type 'text' are read")


def _check(messages: Messages, rejected: str | None) -> None:
    """The rules for every form. Raises the first that is broken."""
    roles = [message["role"] for message in messages] or ["nothing"]
    if roles[-1] != "assistant":
        raise BadRowError("broken", f"a dialogue must end with a response of the assistant, not with {roles[-1]}")
    if roles[-2:-1] != ["user"]:
        raise BadRowError("broken", "the response must follow a message of the user")
    names = [*(f"message {number} ({role})" for number, role in enumerate(roles[:-1], start=1)), "the response"]
    texts = dict(zip(names, (message["content"] for message in messages), strict=True))
    for name, text in (texts if rejected is None else texts | {"the rejected response": rejected}).items():
        if not text.strip():
            raise BadRowError("broken", f"{name} is empty")
    if messages[-1]["content"] == rejected:
        raise BadRowError("broken", "the chosen and the rejected response are the same, so neither is preferred")
