"""What holds for any correct decoding: no dependence on the batch, and nothing different afterwards."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import EOS, byte_tokenizer, random_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from afterword.models.generation import generate

STORIES = Path(__file__).parents[3].parent / "shared" / "data" / "models" / "stories260K"


def _random_llama(**generation: Any) -> LlamaForCausalLM:
    model = random_llama(num_key_value_heads=2, initializer_range=0.3, pad_token_id=None)
    model.generation_config.update(**generation)
    return model


PROMPTS = [[0, *range(10, 10 + n)] for n in (3, 17, 1, 8, 30)]


def _naive_greedy(model: LlamaForCausalLM, prompt: list[int], new_tokens: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + new_tokens and (len(ids) == len(prompt) or ids[-1] != EOS):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 60, 8192])
def test_greedy_is_the_most_probable_token_again_and_again_whatever_the_batch(batch_tokens: int):
    model = _random_llama().eval()
    written = generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=12, batch_tokens=batch_tokens)
    assert written == [_naive_greedy(model, prompt, 12) for prompt in PROMPTS]
    assert len({tuple(ids) for ids in written}) == len(PROMPTS), "the prompts matter, or nothing was tested"


def test_greedy_is_the_same_in_any_batch_on_a_trained_model():
    if not STORIES.is_dir():
        pytest.skip(f"needs the tiny trained model in {STORIES}")
    model = AutoModelForCausalLM.from_pretrained(STORIES).eval()
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    texts = ["Once upon a time", "The dog", "Lily and Tom went to the park. They saw a big tree and", "He"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    together = generate(model, tokenizer, prompts, max_new_tokens=24)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=24)[0] for prompt in prompts]
    assert together == alone
    drawn = generate(model, tokenizer, prompts, max_new_tokens=24, seed=1)
    assert drawn == generate(model, tokenizer, prompts, max_new_tokens=24, seed=1, batch_tokens=1)


def test_sampling_depends_on_the_seed_and_neither_on_the_batch_nor_on_global_state():
    model, tokenizer = _random_llama(), byte_tokenizer()
    torch.manual_seed(1)
    first = generate(model, tokenizer, PROMPTS, max_new_tokens=10, seed=3)
    torch.manual_seed(2)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=10, seed=3, batch_tokens=1) == first
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=10, seed=4) != first
    same_prompts = generate(model, tokenizer, [PROMPTS[0]] * 8, max_new_tokens=10, seed=3)
    assert len({tuple(ids) for ids in same_prompts}) == 8, "equal prompts are drawn independently"


def test_sampled_tokens_have_the_probabilities_of_the_model():
    model, tokenizer = _random_llama().eval(), byte_tokenizer()
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    expected = logits.softmax(-1).numpy()
    drawn = generate(model, tokenizer, [PROMPTS[0]] * 4_000, max_new_tokens=1, seed=0, batch_tokens=100_000)
    counted = np.bincount([ids[0] for ids in drawn], minlength=258) / 4_000
    # Total variation of 4,000 draws over few probable tokens.
    assert np.abs(counted - expected).sum() / 2 < 0.08


def test_a_completion_ends_with_the_token_that_ended_it_and_not_before_the_minimum():
    model, tokenizer = _random_llama(), byte_tokenizer()
    first = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    stop = first[1][5]
    stopped = generate(model, tokenizer, PROMPTS, max_new_tokens=12, extra_eos_ids=[stop])
    assert stopped == [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in first]
    everything_ends = list(range(258))
    drawn = generate(model, tokenizer, PROMPTS, max_new_tokens=9, seed=0, extra_eos_ids=everything_ends)
    assert [len(ids) for ids in drawn] == [1] * len(PROMPTS)
    drawn = generate(model, tokenizer, PROMPTS, max_new_tokens=9, min_new_tokens=7, seed=0, extra_eos_ids=range(250))
    assert all(len(ids) >= 7 for ids in drawn)


def test_settings_in_the_models_own_generation_config_do_not_reach_greedy_decoding():
    plain = generate(_random_llama(), byte_tokenizer(), PROMPTS, max_new_tokens=12)
    model = _random_llama(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=50.0, no_repeat_ngram_size=1, max_length=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=12) == plain


def test_generation_says_nothing(capfd: pytest.CaptureFixture[str]):
    model = _random_llama(do_sample=True, temperature=0.7, top_p=0.8)
    generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=4)
    generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=4, seed=0)
    # The loggers of transformers do not propagate; they write to the file descriptor.
    assert capfd.readouterr() == ("", "")


def test_nothing_global_is_disturbed_and_dropout_is_refused():
    model, tokenizer = _random_llama(), byte_tokenizer()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    generate(model, tokenizer, PROMPTS, max_new_tokens=6)
    generate(model, tokenizer, PROMPTS, max_new_tokens=6, seed=0)
    assert random.getstate() == states[0]
    np.testing.assert_equal(np.random.get_state(), states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert tokenizer.pad_token is None
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(AssertionError, match="dropout"):
        generate(model.train(), tokenizer, PROMPTS, max_new_tokens=6)


def test_an_adapter_is_used_and_left_as_it_was():
    peft = pytest.importorskip("peft")
    plain = generate(_random_llama(), byte_tokenizer(), PROMPTS, max_new_tokens=12)
    base = _random_llama(repetition_penalty=50.0)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    assert generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=12) == plain, "LoRA starts as zero"
