"""Writing step by step is what the model's own generate() writes, whoever leaves the batch, whatever the cache."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, MistralConfig

from afterword.models import decoding, read_prompts, side_by_side
from afterword.models.decoding import Writing, continues_beginnings, drawn_tokens, without_the_unlikely, written_rows

SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
SMALL |= {"num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}
CONFIGS = {
    "grouped": LlamaConfig(**SMALL),
    "sliding": MistralConfig(**SMALL, sliding_window=6),
    "learned positions": GPT2Config(vocab_size=300, n_embd=32, n_head=4, n_layer=2, bos_token_id=0, eos_token_id=1),
    "no attention": MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=8),
}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 17], [5, 6, 7], [20, 21]]
STEPS = 90
"""More than there is room for at first."""


def _model(kind: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    for parameter in model.parameters():
        # Random logits of a fresh model are nearly equal, so that every text would be the same.
        parameter.data.mul_(4.0 if parameter.dim() > 1 else 1.0)
    model.generation_config.eos_token_id = None
    return model.eval()


def _how(rows: int = len(PROMPTS), **how) -> Writing:
    draws = np.stack([np.random.default_rng((0, row)).random(STEPS) for row in range(rows)])
    # A thirtieth of the vocabulary: rows end at different steps.
    usual = {"max_new_tokens": STEPS, "min_new_tokens": 2, "ends": frozenset(range(0, 300, 30)), "draws": draws}
    return Writing(**{**usual, **how})


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("drawn", [False, True])
def test_step_by_step_is_what_generate_writes(kind: str, drawn: bool):
    how, model = _how() if drawn else _how(draws=None), _model(kind)
    written = written_rows(model, PROMPTS, how)
    assert written == decoding._by_transformers(model, PROMPTS, how)
    if drawn:
        assert len({len(ids) for ids in written}) > 2, "rows end at different steps, or nobody left"
        assert all(ids[-1] in how.ends and not how.ends.intersection(ids[:-1]) for ids in written if len(ids) < STEPS)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_row_is_written_as_if_it_were_alone(kind: str):
    how, model = _how(ends=frozenset({3, 30, 100, 200})), _model(kind)
    together = written_rows(model, PROMPTS, how)
    for row, prompt in enumerate(PROMPTS):
        own = _how(1, ends=how.ends, draws=how.draws[row : row + 1])
        assert written_rows(model, [prompt], own) == [together[row]], row


def test_models_that_prepare_their_steps_themselves_are_left_to_do_so():
    assert {kind: decoding._goes_by_steps(_model(kind)) for kind in CONFIGS} == {
        "grouped": True,
        "sliding": True,
        "learned positions": True,
        "no attention": False,
    }


def test_tokens_that_may_not_follow_an_opening_do_not_in_any_row_that_stays():
    model, how = _model("grouped"), _how(draws=None, ends=frozenset())
    free = written_rows(model, PROMPTS, how)
    # Whatever was written as third token is forbidden behind its own opening, in all rows but the first.
    forbidden = [{}, *({tuple(ids[:2]): [ids[2]]} for ids in free[1:])]
    bound = written_rows(model, PROMPTS, _how(draws=None, ends=frozenset(), forbidden=forbidden))
    assert bound[0] == free[0]
    assert all(new[:2] == old[:2] and new[2] != old[2] for new, old in zip(bound[1:], free[1:], strict=True))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_row_ends_after_as_many_tokens_as_it_may_have(kind: str):
    model, how, most = _model(kind), _how(draws=None), [1, 90, 7, 30, 2]
    free = written_rows(model, PROMPTS, how)
    assert any(len(ids) > bound for ids, bound in zip(free, most, strict=True))
    done = list[int]()
    found = written_rows(model, PROMPTS, _how(draws=None, most=most), done.append)
    assert found == [ids[:bound] for ids, bound in zip(free, most, strict=True)]
    assert sum(done) == len(PROMPTS)


@pytest.mark.parametrize("size", [3, 255, 256, 257, 5000])
def test_a_drawn_token_is_where_the_whole_cumulative_sum_passes_the_draw(size: int):
    scores = torch.randn(400, size, generator=torch.Generator().manual_seed(size)) * 3
    scores[:, 1] = -torch.inf
    draws = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cumulated = scores.softmax(-1).double().cumsum(-1)
    expected = torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True)[:, 0]
    assert torch.equal(drawn_tokens(scores, draws), expected)


@pytest.mark.parametrize(("draw", "token"), [(0.0, 1), (0.49, 1), (0.51, 700), (1 - 2**-53, 700)])
def test_a_token_of_probability_zero_is_never_drawn(draw: float, token: int):
    scores = torch.full((1, 1000), -torch.inf)
    scores[0, [1, 700]] = 0.0
    assert drawn_tokens(scores, torch.tensor([draw], dtype=torch.float64)).tolist() == [token]


def test_the_unlikely_are_left_out_by_hand():
    found = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    # 0.4 alone does not come to 0.5; with 0.3 it does. Equals stay together, and the likeliest always.
    expected = torch.tensor([[0, 0.4, 0, 0.3], [0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0]])
    assert torch.equal(without_the_unlikely(found, 0.5), expected)
    assert torch.equal(without_the_unlikely(found, 0.01)[0], torch.tensor([0, 0.4, 0, 0]))
    assert torch.equal(without_the_unlikely(found, 0.75)[0], torch.tensor([0, 0.4, 0.2, 0.3]))
    assert without_the_unlikely(found, 1.0) is found


def test_the_likeliest_of_a_large_vocabulary_are_those_of_sorting_all_of_it():
    scores = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    scores[1:] *= 4
    probabilities = scores.softmax(-1)
    for top_p in (0.3, 0.95):
        kept = without_the_unlikely(probabilities, top_p)
        for row, left in zip(probabilities, kept, strict=True):
            count, total = 0, 0.0
            for probability in row.double().sort(descending=True).values.tolist():
                if total >= top_p:
                    break
                count, total = count + 1, total + probability
            assert int((left > 0).sum()) == count
            assert torch.equal(left[left > 0], row[left > 0])


def test_draws_have_the_frequencies_of_temperature_and_top_p():
    scores, count = torch.tensor([[0.0, 1.0, 2.0, -1.0]]), 20_000
    draws = np.random.default_rng(0).random((count, 1))
    how = Writing(max_new_tokens=1, min_new_tokens=0, ends=(), draws=draws, temperature=0.5, top_p=0.95)
    found = how.chosen(scores.repeat(count, 1), range(count), [[]] * count)
    # At 0.5 the scores are 0, 2, 4, -2: probabilities 0.016, 0.117, 0.865, 0.002, of which two come to 0.95.
    odds = torch.tensor([0.0, np.exp(2), np.exp(4), 0.0])
    assert (found.bincount(minlength=4) / count).tolist() == pytest.approx((odds / odds.sum()).tolist(), abs=0.01)


def test_prompts_that_go_on_from_beginnings_are_those_read_whole():
    how, model = _how(5), _model("grouped")
    beginnings, of_rows = [[5, 6, 7, 8, 9, 10], [40, 41]], [0, 1, 0, 1, 0]
    rest = [[11], [12, 13, 14], [15, 16], [12], [11]]
    whole = [[*beginnings[n], *more] for n, more in zip(of_rows, rest, strict=True)]
    assert continues_beginnings(model)
    with torch.no_grad():
        read = read_prompts(model, beginnings)
    expected = written_rows(model, whole, how)
    assert written_rows(model, rest, how, behind=read.of_rows(of_rows)) == expected
    assert written_rows(model, rest, how, behind=read.of_rows(of_rows)) == expected, "what was read stays as it is"
    with torch.no_grad():
        apart = [(read_prompts(model, [beginnings[0]]), [0, 0, 0]), (read_prompts(model, [beginnings[1]]), [0, 0])]
    order = [0, 2, 4, 1, 3]
    own = _how(draws=how.draws[order])
    behind = side_by_side(apart)
    assert behind.lengths.tolist() == [6, 6, 6, 2, 2]
    assert written_rows(model, [rest[row] for row in order], own, behind=behind) == [expected[row] for row in order]
    assert not any(continues_beginnings(_model(kind)) for kind in ("sliding", "no attention"))
