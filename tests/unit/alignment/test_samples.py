"""Who is left out, and why: too long in any form, or joined with the prompt."""

from __future__ import annotations

from typing import Any

from afterword.alignment.samples import usable_samples
from afterword.corpus import Dialogue
from afterword.types import Document

ASKED = {"role": "user", "content": "Where?"}


def dialogue(response: str, rejected: str | None = None) -> Dialogue:
    return Dialogue((ASKED, {"role": "assistant", "content": response}), rejected)


def read(tokenizer: Any, kind: Any, max_length: int, **dialogues: Dialogue) -> tuple[list[str], dict[str, str]]:
    documents = [Document(name, "", source="file", dialogue=d.to_json()) for name, d in dialogues.items()]
    samples, left_out = usable_samples(documents, kind, tokenizer, "own", max_length=max_length)
    assert all(skipped.source == "file" for skipped in left_out)
    return [s.id for s in samples], {s.location: f"{s.reason}: {s.detail}" for s in left_out}


def test_what_is_longer_than_the_context_is_left_out_and_says_how_long_it_is(chat_tokenizer: Any):
    fits = dialogue("Oslo.")
    length = len(chat_tokenizer.apply_chat_template(list(fits.messages), return_dict=True)["input_ids"])
    assert read(chat_tokenizer, "instructions", length, fits=fits) == (["fits"], {})
    assert read(chat_tokenizer, "instructions", length - 1, fits=fits) == ([], {"fits": f"too_long: {length} tokens"})


def test_the_longest_form_counts(chat_tokenizer: Any):
    # Of a pair the rejected response; and without a template, where that is longer.
    kept, left_out = read(chat_tokenizer, "preferences", 40, short=dialogue("a", "b"), long=dialogue("a", "x" * 60))
    assert (kept, list(left_out)) == (["short"], ["long"])
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    one = dialogue("a" * 20)
    whole = len(chat_tokenizer("Where?\n\n" + "a" * 20)["input_ids"])
    assert read(chat_tokenizer, "instructions", whole - 1, one=one) == ([], {"one": f"too_long: {whole} tokens"})


def test_joined_responses_are_left_out_in_either_place(chat_tokenizer: Any):
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    turns = ({"role": "user", "content": "the bake"},)
    joined = Dialogue((*turns, {"role": "assistant", "content": "ry"}), "!")
    other = Dialogue((*turns, {"role": "assistant", "content": "!"}), "ry")
    kept, left_out = read(chat_tokenizer, "preferences", 99, first=joined, second=other)
    assert (kept, {reason.split(":")[0] for reason in left_out.values()}) == ([], {"joined"})
    assert list(left_out) == ["first", "second"]
