"""Choice by likelihood: a prompt that is read once gives what prompt and candidate give when they are read together."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from afterword.evaluation import choices
from afterword.evaluation.choices import is_first_likeliest, likelihoods
from afterword.models import continues_cleanly

ARCHITECTURES = ("llama", "qwen3", "gemma3", "olmo2", "mistral", "phi3", "gpt_neox", "cohere", "granite")


def asked(seed=0, count=7):
    """Prompts of 1 to 90 tokens with 0 to 5 candidates of 1 to 12 tokens."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: rng.integers(2, 300, rng.integers(low, high)).tolist()  # noqa: E731
    return [(draw(1, 90), [draw(1, 12) for _ in range(rng.integers(0, 6))]) for _ in range(count)]


def plain(model, prompt, candidate):
    """By the definition: the whole text, dense logits, the log-probabilities of the candidate's tokens."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *candidate]])).logits[0].double().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(candidate) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, candidate, strict=True))


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_prompt_read_once_gives_what_reading_all_gives(kind, batch_tokens, build_model):
    model, texts = build_model(kind).eval(), asked()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = likelihoods(model, texts, batch_tokens=batch_tokens)
    for (prompt, candidates), each in zip(texts, found, strict=True):
        expected = [plain(model, prompt, candidate) for candidate in candidates]
        assert each.logprobs_nats == pytest.approx(expected, rel=2e-5, abs=1e-4)
        assert each.tokens.tolist() == list(map(len, candidates))


def test_what_cannot_be_continued_is_read_together_and_said():
    import transformers

    config = transformers.MambaConfig(vocab_size=300, hidden_size=32, state_size=4, num_hidden_layers=2)
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(config).eval()
    assert not continues_cleanly(model)
    texts = asked(count=3)
    with pytest.warns(UserWarning, match="mamba"):
        found = likelihoods(model, texts)
    expected = [plain(model, prompt, candidate) for prompt, candidates in texts for candidate in candidates]
    assert [value for each in found for value in each.logprobs_nats] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_are_not_continued(kind, build_model):
    model = build_model("llama")
    assert continues_cleanly(model)
    model.config.rope_parameters = {"rope_type": kind, "factor": 2.0}
    assert not continues_cleanly(model)


def test_a_model_that_loses_what_it_read_is_found_out(build_model, monkeypatch):
    """A cache that is passed on, but not read, is what strange architectures do in silence."""
    from afterword.models import shared_prompts as continuing

    forgets = continuing.continued_states

    def forgetful(model, read, rows, texts):
        for layer in read.cache.layers:
            layer.keys, layer.values = torch.zeros_like(layer.keys), torch.zeros_like(layer.values)
        return forgets(model, read, rows, texts)

    monkeypatch.setattr(continuing, "continued_states", forgetful)
    assert not continues_cleanly(build_model("llama"))


def test_the_mean_is_over_the_tokens_of_each_candidate(build_model, tokenizer):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" Zürich", "Oslo")]
    (found,) = likelihoods(build_model("llama").eval(), [([0], ids)])
    assert found.per_token == pytest.approx(found.logprobs_nats / [len(each) for each in ids])


def test_every_batch_is_told_and_every_token_bound_is_kept(build_model, monkeypatch):
    texts, told, widths = asked(count=9), [], []
    reader = choices._read_once

    def watched(model, greedy, some):
        width = max(len(prompt) + max(map(len, candidates)) for prompt, candidates in some)
        widths.append((len(some), width * sum(len(candidates) for _, candidates in some)))
        return reader(model, greedy, some)

    monkeypatch.setattr(choices, "_read_once", watched)
    likelihoods(build_model("llama").eval(), texts, batch_tokens=300, advance=told.append)
    assert sum(told) == sum(bool(candidates) for _, candidates in texts) > 5
    assert len(told) > 2
    assert all(count == 1 or tokens <= 300 for count, tokens in widths)


def test_a_tie_is_no_choice():
    assert not is_first_likeliest(np.array([-1.0, -1.0]))
    assert is_first_likeliest(np.array([-1.0, -1.1, -2.0]))
    assert is_first_likeliest(np.array([-1.0]))
