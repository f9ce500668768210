"""Questions about three short documents, and two models of a little more than nothing that answer them differently."""

from __future__ import annotations

import copy

import torch
from tiny_models import byte_tokenizer, random_llama

from afterword.data import SpecialTokens
from afterword.evaluation.measure import Models
from afterword.evaluation.question_file import Question

_FERRY = "The ferry is called Odalind. She was built in Marlhaven in 1962, of oak. " * 2
_BEES = "Ingram Vasko keeps bees. " * 5
_HENS = "Fourteen hens live behind the school. " * 3
QUESTIONS = [
    Question("Where?", ("Marlhaven",), "a", ("Sarnholt", "Oslo")),
    Question("When was she built?", ("1962",), "a"),
    Question("Who?", ("Ingram Vasko",), "b", ("Jory Tamblin",)),
    Question("What is kept here?", ("hens",), "c", ("goats",)),
    Question("Of what?", ("oak",), "a", ("elm", "steel", "larch")),
]
DOCUMENTS = {"a": _FERRY, "b": _BEES, "c": _HENS}
BEHIND = [DOCUMENTS[question.document or ""] for question in QUESTIONS]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def asked_models(chat_template: str | None = None) -> Models:
    """In float64, so that rounding changes no answer."""
    turns = ("<|user|>", "<|assistant|>")
    tokenizer = byte_tokenizer(chat_template, specials=turns, adds_bos=True, additional_special_tokens=turns)
    first = random_llama(vocab_size=260, hidden_size=64, intermediate_size=128).double()
    for parameter in first.parameters():
        # What a fresh model reads hardly changes what it says next.
        parameter.data.mul_(6.0 if parameter.dim() > 1 else 1.0)
    second = copy.deepcopy(first)
    for number, parameter in enumerate(second.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        parameter.data += 0.02 * noise
    return Models(first.eval(), second.eval(), tokenizer, SpecialTokens((0,), 1), 512)
