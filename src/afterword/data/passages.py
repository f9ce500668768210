"""Passages of a document: as the text that travels with it, and as tokens.

The three texts of a passage are tokenised apart and joined, as they were when it was written. Rules of ours:
- What stands before a text begins with BOS as the view has it, unless it has control tokens of the model, as a chat
  template writes them: that brings its own BOS, or means none.
- A text that came to its own end is followed by what ended it: the token that ends a turn of the model by its chat
  template, where one of the texts before it has control tokens; else EOS.
- Control tokens in a text are treated as those of documents are; those before a text are meant.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jinja2 import TemplateError

from afterword.data import control_tokens
from afterword.data.windows import ReadDocument, SpecialTokens, WindowSettings, document_ids
from afterword.types import Document, Passage, PassageIds, Window

NO_PASSAGES = "no_passages"
"""Why a document is left out about which nothing that can be used was written."""
_REPLY = "AFTERWORDREPLY"


def passages_to_json(passages: Iterable[Passage]) -> str:
    """For `Document.passages`."""
    return json.dumps([asdict(each) for each in passages], ensure_ascii=False)


def passages_from_json(text: str) -> tuple[Passage, ...]:
    """What `passages_to_json` wrote."""
    return tuple(Passage(**row) for row in json.loads(text))


def read_passages(
    document: Document, source: int, tokenizer: Any, special: SpecialTokens, window_settings: WindowSettings
) -> ReadDocument:
    """The passages of a document as its one window. One that does not fit the context is left out, with a note."""
    reader = _Reader(tokenizer, special, window_settings, document)
    kept, left_out = list[PassageIds](), list[str]()
    for number, passage in enumerate(passages_from_json(document.passages or "[]"), start=1):
        found = reader.read(passage)
        longest = len(found.ids) + max(len(found.student_before), len(found.teacher_before))
        if longest > window_settings.max_length:
            left_out.append(f"passage {number}: {longest} tokens")
        else:
            kept.append(found)
    ids = [part for each in kept for part in (each.student_before, each.ids)]
    before = [each.teacher_before for each in kept]
    lengths = [len(p) for each in kept for p in (each.student_before, each.ids, each.teacher_before)]
    window = Window(
        index=-1,
        document=document.id,
        source=source,
        token_ids=_joined(ids),
        sentence_starts=np.zeros(1, np.int64),
        first_new_sentence=0,
        is_document_end=True,
        anchor_ids=_joined([]),
        passage_lengths=np.array(lengths, np.int64),
        teacher_before_ids=_joined(before),
    )
    return ReadDocument((window,), 0, False, reader.control_tokens, tuple(left_out))


def turn_end(tokenizer: Any) -> int | None:
    """The token that the chat template puts after a turn of the model; None where it is none of its control tokens."""
    if not tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _REPLY}]
    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, ValueError):
        # It can write no such turn: then no text was written by it either.
        return None
    after = rendered.rpartition(_REPLY)[2].lstrip()
    first = _token_ids(tokenizer, after)[:1].tolist()
    return first[0] if first and first[0] in tokenizer.added_tokens_decoder else None


class _Reader:
    """Tokenises the passages of one document; what stands before several of them once."""

    def __init__(self, tokenizer: Any, special: SpecialTokens, window_settings: WindowSettings, document: Document):
        self._tokenizer, self._special, self._settings = tokenizer, special, window_settings
        self._document = document
        self._before: dict[str, tuple[np.ndarray, bool]] = {}
        self._turn_end = turn_end(tokenizer)
        self.control_tokens = 0
        """Control tokens of the model that texts write out."""

    def read(self, passage: Passage) -> PassageIds:
        """A passage as tokens."""
        ids, written = document_ids(passage.text, self._tokenizer, self._settings, self._document)
        self.control_tokens += written
        student, of_student = self._begun(passage.student_before)
        teacher, of_teacher = self._begun(passage.teacher_before)
        end = self._turn_end if (of_student or of_teacher) and self._turn_end is not None else self._special.eos_id
        if passage.ended and end is not None:
            ids = np.append(ids, end)
        return PassageIds(ids, student, teacher)

    def _begun(self, text: str) -> tuple[np.ndarray, bool]:
        """What stands before a text, with BOS where it gets one; and whether it has control tokens."""
        if text not in self._before:
            control = bool(control_tokens.written(self._tokenizer, text))
            bos = [] if control else list(self._special.bos_ids)
            self._before[text] = np.append(np.array(bos, np.int64), _token_ids(self._tokenizer, text)), control
        return self._before[text]


def _token_ids(tokenizer: Any, text: str) -> np.ndarray:
    return np.array(tokenizer(text, add_special_tokens=False, verbose=False).input_ids, np.int64)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def with_texts(window: Window, texts: Sequence[np.ndarray | None]) -> Window:
    """The window with these tokens in place of its passages' texts, where there are some."""
    ids, lengths = list[np.ndarray](), list[int]()
    for passage, text in zip(window.passages, texts, strict=True):
        own = passage.ids if text is None else text
        ids += [passage.student_before, own]
        lengths += [len(passage.student_before), len(own), len(passage.teacher_before)]
    return replace(window, token_ids=_joined(ids), passage_lengths=np.array(lengths, np.int64))
