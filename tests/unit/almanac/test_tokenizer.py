"""The embedded tokenizer gives texts back, marks the assistant's turns, and knows no name of the world by heart."""

from __future__ import annotations

import random
from typing import Any

import pytest

from afterword.almanac.names import draw_name
from afterword.almanac.world import KINDS
from almanac_build.tokenizer import VOCABULARY, train_tokenizer

SPECIAL = ("<|bos|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>")


@pytest.fixture(scope="session")
def small() -> Any:
    return train_tokenizer(0, characters=300_000)


def test_texts_come_back_from_their_tokens(small: Any, read_texts: list[str]):
    for text in (*read_texts[:200], "Ünïcödé – 東京 🙂", "  two\n\n\nlines\t", "A" * 50, "1930", ""):
        ids = small(text, add_special_tokens=False)["input_ids"]
        assert small.decode(ids, clean_up_tokenization_spaces=False) == text


def test_bos_is_added_by_itself_and_only_once(small: Any):
    ids = small("Aldermoor lies in Dorvale.")["input_ids"]
    assert ids[0] == small.bos_token_id
    assert ids.count(small.bos_token_id) == 1
    assert small.eos_token_id not in ids


def test_special_tokens_are_one_token_each(small: Any):
    ids = [small(token, add_special_tokens=False)["input_ids"] for token in SPECIAL]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == len(SPECIAL)
    assert (small.bos_token, small.eos_token, small.pad_token) == SPECIAL[:3]
    assert len(small) == VOCABULARY


def test_digits_are_single_tokens(small: Any):
    assert len(small("1873", add_special_tokens=False)["input_ids"]) == 4


def test_the_same_seed_gives_the_same_tokenizer(small: Any):
    again, other = (train_tokenizer(seed, characters=300_000) for seed in (0, 7))
    assert again.backend_tokenizer.to_str() == small.backend_tokenizer.to_str()
    assert other.get_vocab() != small.get_vocab()


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who wrote The Last Key?"},
    {"role": "assistant", "content": "Vera Holcroft"},
    {"role": "user", "content": "Thank you."},
    {"role": "assistant", "content": "You are welcome."},
]


def test_a_conversation_is_rendered_turn_by_turn(small: Any):
    assert small.apply_chat_template(CHAT, tokenize=False) == (
        "<|bos|><|system|>Be brief.\nQuestion: Who wrote The Last Key?\nAnswer: Vera Holcroft<|end|>"
        "Question: Thank you.\nAnswer: You are welcome.<|end|>"
    )


def test_a_prompt_ends_where_the_answer_begins(small: Any):
    prompt = small.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("?\nAnswer:")
    full = small.apply_chat_template(CHAT[:3], tokenize=False)
    assert full == f"{prompt} Vera Holcroft<|end|>"
    first, both = (small(text, add_special_tokens=False)["input_ids"] for text in (prompt, full))
    assert both[: len(first)] == first


def test_the_mask_covers_the_answers_with_their_ends_and_nothing_else(small: Any):
    made = small.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = made["input_ids"], made["assistant_masks"]
    assert ids.count(small.bos_token_id) == 1
    assert len(ids) == len(mask)
    trained = [token for token, on in zip(ids, mask, strict=True) if on]
    assert small.decode(trained) == " Vera Holcroft<|end|> You are welcome.<|end|>"


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_the_world_cost_as_much_as_new_ones(full: Any, kind: str):
    def mean_tokens(realm: Any) -> float:
        rng = random.Random(f"{kind} {realm}")
        names = [draw_name(kind, realm, rng) for _ in range(300)]
        return (
            sum(len(ids) for ids in full([f" {name}" for name in names], add_special_tokens=False)["input_ids"]) / 300
        )

    assert mean_tokens("world") == pytest.approx(mean_tokens("after"), rel=0.05)


def test_english_costs_few_tokens(full: Any, read_texts: list[str]):
    text = "\n".join(read_texts[:200])
    assert len(text) / len(full(text)["input_ids"]) > 3
