"""Text of a model's own: written once, and read again only where it is what would be written."""

import pytest
from tiny_models import byte_tokenizer, random_llama

from afterword.models import kept_samples
from afterword.models.generation import end_of_turn, generate, own_samples, prompt_ids, user_turn
from afterword.models.kept_samples import kept_own_samples, kept_replies

NUMBERS = {"count": 3, "new_tokens": 8, "seed": 5}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """How often samples were written, in an empty cache."""
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path))
    calls = []

    def counted(*args, **numbers):
        calls.append(numbers)
        return own_samples(*args, **numbers)

    monkeypatch.setattr(kept_samples, "own_samples", counted)
    return calls


def test_they_are_written_once_and_are_the_same(told):
    model, tokenizer = random_llama(0, vocab_size=258, initializer_range=0.1), byte_tokenizer()
    first = kept_own_samples(model, tokenizer, **NUMBERS)
    assert first == own_samples(model, tokenizer, **NUMBERS)
    assert kept_own_samples(model, tokenizer, **NUMBERS) == first
    assert len(told) == 1


@pytest.mark.parametrize("change", ["seed", "weights", "template", "precision", "off"])
def test_what_they_follow_from_makes_them_anew(told, monkeypatch, change):
    model, tokenizer = random_llama(0, vocab_size=258, initializer_range=0.1), byte_tokenizer()
    kept_own_samples(model, tokenizer, **NUMBERS)
    numbers = {**NUMBERS, "seed": 6} if change == "seed" else NUMBERS
    if change == "weights":
        model.lm_head.weight.data[0, 0] += 1.0
    if change == "template":
        tokenizer.chat_template = TEMPLATE
    if change == "precision":
        model = model.bfloat16()
    if change == "off":
        monkeypatch.setenv("AFTERWORD_CACHE", "off")
    kept_own_samples(model, tokenizer, **numbers)
    assert len(told) == 2


@pytest.mark.parametrize("damage", ["", "[", '[{"prompt": "x"}]', "null"])
def test_a_damaged_file_is_written_again(told, tmp_path, damage):
    model, tokenizer = random_llama(0, vocab_size=258, initializer_range=0.1), byte_tokenizer()
    first = kept_own_samples(model, tokenizer, **NUMBERS)
    (file,) = (tmp_path / "samples").iterdir()
    file.write_text(damage)
    assert kept_own_samples(model, tokenizer, **NUMBERS) == first
    assert len(told) == 2
    assert kept_own_samples(model, tokenizer, **NUMBERS) == first
    assert len(told) == 2


def test_replies_are_the_likeliest_and_written_once(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path))
    calls = []

    def counted(*args, **settings):
        calls.append(len(args[2]))
        return generate(*args, **settings)

    monkeypatch.setattr(kept_samples, "generate", counted)
    model, tokenizer = random_llama(0, vocab_size=258, initializer_range=0.1), byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    first = kept_replies(model, tokenizer, ["Who?", "When?"], new_tokens=8)
    prompts = [prompt_ids(tokenizer, user_turn(tokenizer, text)) for text in ("Who?", "When?")]
    likeliest = generate(model, tokenizer, prompts, max_new_tokens=8, extra_eos_ids=end_of_turn(tokenizer))
    assert [list(it.token_ids) for it in first] == [[*p, *r] for p, r in zip(prompts, likeliest, strict=True)]
    assert [list(it.prompt_ids) for it in first] == prompts
    assert kept_replies(model, tokenizer, ["Who?", "When?"], new_tokens=8) == first
    kept_replies(model, tokenizer, ["Who?", "Where?"], new_tokens=8)
    assert calls == [2, 2]
