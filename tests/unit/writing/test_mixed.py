"""A text of two conversations, token by token against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from afterword.models.decoding import Writing, drawn_tokens, written_rows
from afterword.types import Request, Sampling
from afterword.writing import LocalGenerator
from afterword.writing.mixed import mixed_rows

PROMPTS = [([0, 5, 6, 7, 8, 9], [0, 7]), ([0, 11], [0, 12, 13, 14]), ([0, 40, 41], [0, 42])]
TOKENS = 9


@pytest.fixture
def how():
    draws = np.random.default_rng(3).random((len(PROMPTS), TOKENS))
    return Writing(max_new_tokens=TOKENS, min_new_tokens=0, ends=frozenset({1}), draws=draws, temperature=0.8)


@pytest.fixture
def sides():
    return np.random.default_rng(4).random((len(PROMPTS), TOKENS))


@pytest.fixture
def model(build_model):
    return build_model("llama").eval()


def test_a_share_of_one_or_of_none_is_one_conversation_alone(model, how, sides):
    for share, side in ((1.0, 0), (0.0, 1)):
        plain = written_rows(model, [pair[side] for pair in PROMPTS], how)
        assert mixed_rows(model, PROMPTS, how, sides, [share] * len(PROMPTS)) == plain


def test_every_token_is_of_the_side_that_was_drawn(model, how, sides):
    shares = [0.5, 0.3, 0.8]
    expected = []
    for row, pair in enumerate(PROMPTS):
        written = []
        while len(written) < TOKENS and written[-1:] != [1]:
            number = len(written)
            prompt = pair[0] if sides[row, number] < shares[row] else pair[1]
            with torch.no_grad():
                scores = model(torch.tensor([[*prompt, *written]])).logits[:, -1] / how.temperature
            written.append(int(drawn_tokens(scores, torch.tensor([how.draws[row, number]]))))
        expected.append(written)
    assert mixed_rows(model, PROMPTS, how, sides, shares) == expected


def test_the_generator_writes_both_kinds_apart_and_the_same_in_any_order(model, tokenizer):
    sampling = Sampling(max_new_tokens=8)
    plain = Request(turns=(("user", "Mara ran."),), sampling=sampling)
    requests = [plain] + [
        Request(turns=(("user", "Mara ran. Who?"),), other_turns=(("user", "Who?"),), share=share, sampling=sampling)
        for share in (0.5, 0.9)
    ]

    def texts(asked):
        generator, found = LocalGenerator(model, tokenizer), {}
        for batch in generator.batches(asked):
            assert len({bool(asked[i].other_turns) for i in batch}) == 1
            for part in generator.write([asked[i] for i in batch], lambda _: None):
                found |= {asked[batch[place]]: text for place, (text, _) in part.items()}
        return found

    assert texts(requests) == texts(requests[::-1])
    assert len({LocalGenerator(model, tokenizer).prompt_of(each) for each in requests}) == 3
