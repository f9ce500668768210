"""ollama's Modelfile for a GGUF file: its template in ollama's language, where it ends, and how it is drawn.

The one rule: a template is written only where it says what the model's own does; else it is left out, and why is said.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from afterword.serving.chat_pieces import ChatPieces, NotInPieces, chat_pieces

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
"""Names that the settings of generation have in transformers, and in a Modelfile."""
_ADDS_BOS = "tokenizer.ggml.add_bos_token"
_MARKERS = re.compile(r"\S+")


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile's text, and what is to be said of it."""

    text: str
    stops: tuple[str, ...]
    left_out: str | None
    """Why it has no TEMPLATE; None where it has one."""


def modelfile(file_name: str, tokenizer: Any, generation: Any, fields: Mapping[str, Any]) -> Modelfile:
    """The Modelfile of a GGUF file that lies beside it. `fields`: the file's metadata; `generation`: its settings."""
    try:
        pieces, left_out = chat_pieces(tokenizer), None
    except NotInPieces as reason:
        pieces, left_out = None, str(reason)
    stops = tuple(dict.fromkeys(_stops(tokenizer, generation, pieces)))
    lines = [f"FROM ./{file_name}"]
    if pieces:
        lines += [f"TEMPLATE {_quoted(go_template(pieces, adds_bos=bool(fields.get(_ADDS_BOS, True))))}"]
        lines += [f"SYSTEM {_quoted(pieces.default_system)}"] if pieces.default_system else []
    else:
        lines += [f"# No TEMPLATE: {left_out}. ollama takes one of its own where it knows the file's."]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    lines += [f"PARAMETER {ours} {value:g}" for ours, value in _drawn(generation)]
    return Modelfile("\n".join(lines) + "\n", stops, left_out)


def go_template(pieces: ChatPieces, *, adds_bos: bool) -> str:
    """A chat template as ollama reads it, in Go's language of templates.

    `adds_bos`: whether ollama puts the token before a text that begins one, which is then not written here.
    """
    roles = {"system": pieces.system, "user": pieces.user, "assistant": pieces.assistant}
    turns = (
        f'{{{{ {"else " if place else ""}if eq .Role "{role}" }}}}{_literal(before)}{{{{ .Content }}}}{_literal(after)}'
        for place, (role, (before, after)) in enumerate(roles.items())
    )
    start = "" if adds_bos else _literal(pieces.start)
    return f"{start}{{{{ range .Messages }}}}{''.join(turns)}{{{{ end }}}}{{{{ end }}}}{_literal(pieces.reply)}"


def _literal(text: str) -> str:
    """A text that Go takes as it stands: two braces would open a command."""
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    """A value as a Modelfile has it; three quotes where it has quotes or lines of its own."""
    return f'"""{text}"""' if re.search(r'["\n]', text) or text != text.strip() else f'"{text}"'


def _stops(tokenizer: Any, generation: Any, pieces: ChatPieces | None) -> Iterator[str]:
    """Texts of the tokens that end a reply: those of generation, and what ends a turn in the chat template."""
    ends = generation.eos_token_id if generation is not None else None
    ids: Iterable[int] = ends if isinstance(ends, list) else [tokenizer.eos_token_id if ends is None else ends]
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    yield from (tokenizer.convert_ids_to_tokens(each) for each in ids if each is not None)
    if pieces and (marker := _MARKERS.search(pieces.assistant[1])) and marker[0] in special:
        yield marker[0]


def _drawn(generation: Any) -> Iterator[tuple[str, float]]:
    """Settings of drawing that the model comes with; what it does not say stays ollama's."""
    if generation is None or generation.do_sample is False:
        return
    for theirs, ours in _PARAMETERS.items():
        if (value := getattr(generation, theirs, None)) is not None:
            yield ours, value
