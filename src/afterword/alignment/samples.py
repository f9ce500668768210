"""Dialogues that can be aligned on: read as token ids in both forms, and what is left out counted with its reason.

The one rule: a dialogue is trained whole or not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from afterword.alignment.templates import RefusedDialogue, Tokens, chat_tokens, plain_tokens
from afterword.corpus import Dialogue, Kind
from afterword.data import as_words
from afterword.types import Document, Skipped


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A dialogue that may be selected."""

    id: str
    source: str
    kind: Kind
    dialogue: Dialogue
    plain: Tokens
    """Without a template, as stage 1 reads it."""
    chat: Tokens
    """As SFT trains it; of a pair the chosen response."""


def usable_samples(
    documents: Iterable[Document],
    kind: Kind,
    tokenizer: Any,
    template: str,
    *,
    max_length: int,
    joiner: str = "\n\n",
    lenient: bool = False,
) -> tuple[list[Sample], list[Skipped]]:
    """The documents' dialogues that fit `max_length` tokens in every form, in their order; and the others.

    Left out are also those whose response shares a token with the prompt (`joined`): a model that is asked with the
    prompt never sees what would be trained. A dialogue that the template refuses is left out where that is asked for
    (`lenient`), else a RefusedDialogue that names it.
    """
    samples, left_out = list[Sample](), list[Skipped]()
    for document in documents:
        assert document.dialogue is not None, "the corpus was read as instructions or preferences"
        dialogue = dialogue_in(document, tokenizer)
        try:
            plain, forms = plain_tokens(tokenizer, dialogue, joiner), _chat_forms(tokenizer, template, dialogue)
        except RefusedDialogue as error:
            if not lenient:
                remedy = f"Or leave out such rows, counted (the first is {document.id}): skip_bad_rows: true."
                raise RefusedDialogue(f"{error.problems[0]} {remedy}") from error
            left_out.append(Skipped(document.source, document.id, "refused_by_template", error.problems[0]))
            continue
        longest = max(len(form.ids) for form in (plain, *forms))
        if longest > max_length:
            left_out.append(Skipped(document.source, document.id, "too_long", f"{longest} tokens"))
        elif any(form.joined for form in forms):
            left_out.append(Skipped(document.source, document.id, "joined", "response shares a token with the prompt"))
        else:
            samples.append(Sample(document.id, document.source, kind, dialogue, plain, forms[0]))
    return samples, left_out


def dialogue_in(document: Document, tokenizer: Any) -> Dialogue:
    """The dialogue that a document is; control tokens that it writes out are words in it, and end no turn."""
    dialogue = Dialogue.from_json(document.dialogue or "")
    messages = tuple({**each, "content": as_words(tokenizer, each["content"])} for each in dialogue.messages)
    return Dialogue(messages, dialogue.rejected and as_words(tokenizer, dialogue.rejected))


def _chat_forms(tokenizer: Any, template: str, dialogue: Dialogue) -> list[Tokens]:
    responses = [dialogue.response] if dialogue.rejected is None else [dialogue.response, dialogue.rejected]
    return [chat_tokens(tokenizer, template, dialogue.prompt, response) for response in responses]
