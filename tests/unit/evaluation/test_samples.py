"""What the reference wrote by itself: by seed, through its own chat template, whatever the template does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import byte_tokenizer, random_llama
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from afterword.errors import CheckpointError
from afterword.models.generation import answered_prompts, own_samples
from afterword.models.generation import generate as generate_as_it_is

SPECIALS = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
STORIES = Path(__file__).parents[3].parent / "shared" / "data" / "models" / "stories260K"
# Strips the content and adds a system prompt of its own.
WITH_SYSTEM = (
    "{{ bos_token }}<|user|>Be kind.\n\n{% for m in messages %}{{ m['content'] | trim }}\n<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Marks turns by words and by no special token, as [INST] does in some.
BY_WORDS = (
    "{{ bos_token }}{% for m in messages %}[USER] {{ m['content'] }} [/USER]{% endfor %}"
    "{% if add_generation_prompt %} {% endif %}"
)


def _tokenizer(chat_template: str | None = None, **names: str | None) -> PreTrainedTokenizerFast:
    return byte_tokenizer(chat_template, specials=SPECIALS[2:], additional_special_tokens=SPECIALS, **names)


def _random_llama(seed: int = 0) -> LlamaForCausalLM:
    return random_llama(seed, vocab_size=256 + len(SPECIALS), initializer_range=0.1)


def _always(token: str) -> LlamaForCausalLM:
    """A model that writes one token, whatever it has read."""
    model = _random_llama()
    tokenizer = _tokenizer()
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(32, model.config.vocab_size, bias=True)
        model.lm_head.bias.zero_()
        model.lm_head.bias[tokenizer.convert_tokens_to_ids(token)] = 50.0
    return model


@pytest.mark.parametrize("chat_template", [None, WITH_SYSTEM, BY_WORDS])
def test_samples_depend_on_the_seed_alone(chat_template: str | None):
    model, tokenizer = _random_llama(), _tokenizer(chat_template)
    torch.manual_seed(1)
    first = own_samples(model, tokenizer, count=6, new_tokens=40, seed=7)
    torch.manual_seed(2)
    assert own_samples(model, tokenizer, count=6, new_tokens=40, seed=7) == first
    others = own_samples(model, tokenizer, count=6, new_tokens=40, seed=8)
    assert not {sample.token_ids for sample in first} & {sample.token_ids for sample in others}
    assert len({sample.token_ids for sample in first}) == 6
    for sample in first:
        assert sample.token_ids[: len(sample.prompt_ids)] == sample.prompt_ids
        assert len(sample.token_ids) > len(sample.prompt_ids), "something follows the prompt"


def test_a_chat_model_writes_the_user_turn_and_then_the_reply():
    tokenizer = _tokenizer(WITH_SYSTEM)
    for sample in own_samples(_random_llama(), tokenizer, count=4, new_tokens=20):
        prompt = tokenizer.decode([*sample.prompt_ids])
        assert prompt == f"<s><|user|>Be kind.\n\n{sample.prompt}\n<|end|><|assistant|>"


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], list[list[int]]]]:
    """Every call of `sample` in own_samples: how it was called, and what it gave."""
    calls = []

    def spy(*arguments: Any, **settings: Any) -> list[list[int]]:
        written = generate_as_it_is(*arguments, **settings)
        calls.append((settings, written))
        return written

    monkeypatch.setattr("afterword.models.generation.generate", spy)
    return calls


def test_the_user_turn_ends_where_the_template_ends_it(draws: list[tuple[dict[str, Any], list[list[int]]]]):
    tokenizer = _tokenizer(WITH_SYSTEM)
    (sample,) = own_samples(_always("<|end|>"), tokenizer, count=1, new_tokens=20)
    # Nothing but the end of turn would be written; it is held back for the first four tokens.
    assert [len(written) for _, (written,) in draws] == [5, 20], "a reply ends at the model's EOS alone"
    assert tokenizer.decode([*sample.prompt_ids]).count("<|end|>") == 1


def test_no_two_draws_of_any_seed_share_random_numbers(draws: list[tuple[dict[str, Any], list[list[int]]]]):
    for seed in range(4):
        own_samples(_random_llama(), _tokenizer(WITH_SYSTEM), count=1, new_tokens=5, seed=seed)
    assert len({settings["seed"] for settings, _ in draws}) == 8


def test_words_that_end_a_turn_are_cut_with_what_follows(monkeypatch: pytest.MonkeyPatch):
    tokenizer = _tokenizer(BY_WORDS)
    written = [tokenizer("hello [/USER] hi", add_special_tokens=False)["input_ids"], [20, 1]]
    monkeypatch.setattr("afterword.models.generation.generate", lambda *_, **__: [written.pop(0)])
    (sample,) = own_samples(_random_llama(), tokenizer, count=1)
    assert sample.prompt == "hello"
    assert tokenizer.decode([*sample.prompt_ids]) == "<s>[USER] hello [/USER] "


def test_without_a_template_the_prompt_is_the_first_32_tokens():
    tokenizer = _tokenizer()
    for sample in own_samples(_random_llama(), tokenizer, count=3, new_tokens=64):
        assert len(sample.prompt_ids) == 32
        assert sample.prompt_ids[0] == tokenizer.bos_token_id
        assert sample.prompt == tokenizer.decode([*sample.prompt_ids], skip_special_tokens=True)
    # A model that wants to end at once still gets something to be measured on.
    (ended,) = own_samples(_always("</s>"), tokenizer, count=1, new_tokens=64)
    assert ended.token_ids[-1] == tokenizer.eos_token_id
    assert len(ended.token_ids) == 34


def test_eos_begins_a_text_where_there_is_no_bos():
    tokenizer = _tokenizer(bos_token=None)
    (sample,) = own_samples(_random_llama(), tokenizer, count=1, new_tokens=40)
    assert sample.prompt_ids[0] == tokenizer.eos_token_id
    with pytest.raises(CheckpointError, match="neither a BOS nor an EOS"):
        own_samples(_random_llama(), _tokenizer(bos_token=None, eos_token=None), count=1)


@pytest.mark.parametrize(
    "chat_template",
    [
        "{% for m in messages %}{{ m['content'] | lower }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] }} I repeat: {{ m['content'] }}{% endfor %}",
        "no content at all",
        "{{ raise_exception('needs a system message') }}",
    ],
)
def test_a_template_that_does_not_show_the_content_is_named(chat_template: str):
    with pytest.raises(CheckpointError, match="chat template"):
        own_samples(_random_llama(), _tokenizer(chat_template), count=1)


def test_both_models_answer_the_same_prompts_and_are_not_swapped():
    tokenizer = _tokenizer(WITH_SYSTEM)
    samples = own_samples(_random_llama(), tokenizer, count=5, new_tokens=12)
    rows = answered_prompts((lambda: _always("b"), lambda: _always("a")), tokenizer, samples[:3], new_tokens=4)
    assert rows == [{"prompt": sample.prompt, "before": "bbbb", "after": "aaaa"} for sample in samples[:3]]


def test_a_trained_story_model_writes_stories():
    if not STORIES.is_dir():
        pytest.skip(f"needs the tiny trained model in {STORIES}")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(STORIES), AutoTokenizer.from_pretrained(STORIES)
    samples = own_samples(model, tokenizer, count=8, new_tokens=96)
    ids = [torch.tensor([sample.token_ids]) for sample in samples]
    with torch.no_grad():
        nll = [model(input_ids=row, labels=row).loss.item() for row in ids]
    # 1.42 nats on stories by others; a model's own text at temperature 1 is about as probable to it.
    assert 0.8 < sum(nll) / len(nll) < 2.2
