"""A chat template as pieces: what stands before and after what each one says.

The one rule: the pieces are what the template itself renders, and count only if they give the same text as it does
in every sample conversation.
"""

from dataclasses import dataclass
from typing import Any

from afterword.serving.samples import CONVERSATIONS, Message, rendered

_USER, _REPLY, _SYSTEM, _SECOND = "AfterwordSaysA", "AfterwordSaysB", "AfterwordSaysC", "AfterwordSaysD"
"""Contents that are found again in what is rendered."""
_TODAY = "strftime_now"


class NotInPieces(ValueError):  # noqa: N818  the name says what happened
    """A chat template that is more than a text before and after each message; the reason in words."""


@dataclass(frozen=True, kw_only=True)
class ChatPieces:
    """A conversation is `start`, then of every message its role's text before, the content, and the text after."""

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    reply: str
    """What stands at the end, where the model goes on."""
    default_system: str | None
    """What the system says where the conversation has no such message."""

    def compose(self, messages: tuple[Message, ...]) -> str:
        """The text of a conversation, up to where the model goes on."""
        if self.default_system is not None and messages[0]["role"] != "system":
            messages = ({"role": "system", "content": self.default_system}, *messages)
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        parts = (f"{around[m['role']][0]}{m['content']}{around[m['role']][1]}" for m in messages)
        return f"{self.start}{''.join(parts)}{self.reply}"


def chat_pieces(tokenizer: Any) -> ChatPieces:
    """The pieces of a tokenizer's chat template. NotInPieces where it cannot be told, or is not the same text."""
    if not tokenizer.chat_template:
        raise NotInPieces("the model has no chat template")
    if not isinstance(tokenizer.chat_template, str):
        raise NotInPieces("the model has several chat templates")
    if _TODAY in tokenizer.chat_template:
        raise NotInPieces("its chat template writes the day on which it is asked")
    try:
        pieces = _taken_apart(tokenizer)
        different = sum(pieces.compose(each) != rendered(tokenizer, each) for each in CONVERSATIONS)
    except NotInPieces:
        raise
    except Exception as error:  # A template is a program of somebody else's, and refuses roles in its own words.
        raise NotInPieces(f"its chat template refuses a plain conversation ({_first_line(error)})") from error
    if different:
        many = f"{different} of {len(CONVERSATIONS)} conversations"
        raise NotInPieces(f"its chat template is more than a text before and after each message ({many} differ)")
    return pieces


def _taken_apart(tokenizer: Any) -> ChatPieces:
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _REPLY}
    one = rendered(tokenizer, (user,), reply=False)
    asked = rendered(tokenizer, (user,))
    reply = _after(asked, one)
    before_user, after_user = _around(one, _USER)
    _, after_answer = _around(rendered(tokenizer, (user, answer), reply=False), _REPLY)
    second = {"role": "user", "content": _SECOND}
    three = rendered(tokenizer, (user, answer, second), reply=False)
    before_answer = _after(_between(three, _USER, _REPLY), after_user)
    user_text = _after(_between(three, _REPLY, _SECOND), after_answer)
    told = rendered(tokenizer, ({"role": "system", "content": _SYSTEM}, user), reply=False)
    start = tokenizer.bos_token if tokenizer.bos_token and told.startswith(tokenizer.bos_token) else ""
    start = start if one.startswith(start) and not user_text.startswith(start or "\0") else ""
    system = (_after(_around(told, _SYSTEM)[0], start), _before(_between(told, _SYSTEM, _USER), user_text))
    default = _before(_after(before_user, start), user_text)
    says = _before(_after(default, system[0]), system[1]) if default else None
    if says == "":
        raise NotInPieces("its chat template opens with a message of the system that says nothing")
    return ChatPieces(
        start=start,
        system=system,
        user=(user_text, after_user),
        assistant=(before_answer, after_answer),
        reply=reply,
        default_system=says,
    )


def _around(text: str, content: str) -> tuple[str, str]:
    before, found, after = text.partition(content)
    if not found or content in after:
        raise NotInPieces("its chat template does not show each message once, as it stands")
    return before, after


def _between(text: str, first: str, second: str) -> str:
    return _around(_around(text, first)[1], second)[0]


def _after(text: str, begins: str) -> str:
    """What follows in a text that begins so."""
    if not text.startswith(begins):
        raise NotInPieces("its chat template writes a message in other ways at other places")
    return text[len(begins) :]


def _before(text: str, ends: str) -> str:
    """What comes before in a text that ends so."""
    if not text.endswith(ends):
        raise NotInPieces("its chat template writes a message in other ways at other places")
    return text[: len(text) - len(ends)]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
