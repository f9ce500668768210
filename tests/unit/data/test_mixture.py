"""Shares of general text: what was asked for is read, evenly, and a source that runs out says so."""

from __future__ import annotations

import numpy as np
import pytest

from afterword.data.mixture import SourceShare, SourceStream, interleaved, streams
from afterword.errors import ConfigError
from afterword.training.steps import StepPlan

RNG = np.random.default_rng(0)
DOCUMENTS = RNG.integers(50, 400, 2000)
ALPACA, CHATS, NEWS = (RNG.integers(20, 300, count) for count in (1500, 900, 300))


def plan(*sources: tuple[np.ndarray, SourceShare], **steps: int) -> StepPlan:
    return StepPlan(DOCUMENTS, seed=3, streams=streams(DOCUMENTS, sources, 3), **steps)


@pytest.mark.parametrize("steps", [{"documents_per_step": 4}, {"step_tokens": 2048}], ids=["documents", "tokens"])
def test_realised_shares_are_those_asked_for(steps: dict[str, int]) -> None:
    """To 1 % on a million tokens; two shares of tokens, one of samples, one source once in every pass."""
    asked = (ALPACA, SourceShare(tokens=0.3)), (CHATS, SourceShare(tokens=0.15)), (NEWS, SourceShare())
    made = plan(*asked, **steps)
    passes = 3
    read = made.realised(passes * made.steps_per_epoch)
    total = sum(source["tokens"] for source in read)
    assert total > 1e6
    assert [source["token_share"] for source in read[1:3]] == pytest.approx([0.3, 0.15], rel=0.01)
    assert [read[0]["epochs"], read[3]["epochs"]] == [passes, passes]
    assert read[0]["samples"] == passes * len(DOCUMENTS)
    by_samples = plan((ALPACA, SourceShare(samples=0.4)), (CHATS, SourceShare(samples=0.1)), **steps)
    read = by_samples.realised(passes * by_samples.steps_per_epoch)
    assert [source["sample_share"] for source in read] == pytest.approx([0.5, 0.4, 0.1], rel=0.01)


def test_amounts_by_hand() -> None:
    """10 documents of 100 tokens, one source once of 500, a third of samples, a quarter of tokens."""
    sources = (
        (np.full(5, 100), SourceShare()),
        (np.full(50, 20), SourceShare(samples=1 / 3)),
        (np.full(90, 40), SourceShare(tokens=0.25)),
    )
    once, by_samples, by_tokens = streams(np.full(10, 100), sources, 0)
    assert (once.per_epoch, once.by_tokens, once.first) == (5, False, 10)
    # 3/4 T = 1500 + 20/3 S and 2/3 S = 15 + 1/160 T: T = 2400, S = 45.
    assert by_samples.per_epoch == pytest.approx(15)
    assert by_tokens.per_epoch == pytest.approx(600)
    assert (by_samples.first, by_tokens.first) == (15, 65)


def test_a_share_of_samples_beside_a_share_of_tokens_is_of_all_samples() -> None:
    made = plan((ALPACA, SourceShare(tokens=0.3, max_epochs=50)), (CHATS, SourceShare(samples=0.3, max_epochs=50)))
    read = made.realised(3 * made.steps_per_epoch)
    assert read[1]["token_share"] == pytest.approx(0.3, rel=0.01)
    assert read[2]["sample_share"] == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        (
            [(10, SourceShare(tokens=0.5)), (20, SourceShare(samples=1 / 3))],
            "0.5 of tokens and 0.333 of samples cannot both",
        ),
        (
            [(10, SourceShare(tokens=0.4)), (300, SourceShare(samples=0.4))],
            "0.4 of tokens and 0.4 of samples cannot both",
        ),
        (
            [(10, SourceShare(tokens=0.6)), (10, SourceShare(tokens=0.4))],
            "shares of tokens sum to 1, and the documents",
        ),
        (
            [(10, SourceShare(samples=0.6)), (10, SourceShare(samples=0.5))],
            "shares of samples sum to 1.1, and the documents",
        ),
    ],
)
def test_shares_that_cannot_be_met_are_refused(shares: list[tuple[int, SourceShare]], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"mixture: .*{problem}.* Lower them"):
        plan(*((np.full(50, length), share) for length, share in shares))


def test_a_stream_reads_every_sample_once_in_a_pass_and_goes_on_where_it_stopped() -> None:
    stream = SourceStream(np.full(10, 7), first=100, per_epoch=4, by_tokens=False, max_epochs=9, seed=1)
    epochs = [stream.samples(epoch).tolist() for epoch in range(5)]
    assert [len(samples) for samples in epochs] == [4] * 5
    first, second = np.split(np.concatenate(epochs), 2)
    assert sorted(first) == sorted(second) == list(range(100, 110))
    assert first.tolist() != second.tolist()
    assert stream.samples(2).tolist() == epochs[2]


def test_a_source_that_runs_out_gives_no_more() -> None:
    made = plan((NEWS, SourceShare(tokens=0.5, max_epochs=2)), documents_per_step=8)
    read = made.realised(3 * made.steps_per_epoch)
    assert read[1]["epochs"] == 2
    assert read[1]["token_share"] < 0.2
    assert len(made.steps(2)) == made.steps_per_epoch
    assert max(np.concatenate(made.steps(2))) < len(DOCUMENTS)


@pytest.mark.parametrize("steps", [{"documents_per_step": 4}, {"documents_per_step": 3}, {"step_tokens": 4096}])
def test_documents_are_read_once_an_epoch_and_the_mixture_is_even(steps: dict[str, int]) -> None:
    made = plan((ALPACA, SourceShare(tokens=0.4)), **steps)
    for epoch in (0, 1):
        windows = made.steps(epoch)
        assert len(windows) == made.steps_per_epoch
        everything = np.concatenate(windows)
        assert sorted(everything[everything < len(DOCUMENTS)]) == list(range(len(DOCUMENTS)))
        if per_step := steps.get("documents_per_step"):
            assert all((window < len(DOCUMENTS)).sum() == per_step for window in windows[:-1])
        lengths = np.concatenate([DOCUMENTS, ALPACA])
        tenths = np.array_split(everything, 10)
        shares = [lengths[part[part >= len(DOCUMENTS)]].sum() / lengths[part].sum() for part in tenths]
        assert max(shares) - min(shares) < 0.06


def test_without_general_text_a_plan_is_what_it_was() -> None:
    order = np.random.default_rng((3, 1)).permutation(len(DOCUMENTS))
    assert [step.tolist() for step in plan(documents_per_step=7).steps(1)] == [
        order[i : i + 7].tolist() for i in range(0, len(order), 7)
    ]


def test_interleaved_sequences_keep_their_order() -> None:
    order, places = interleaved([np.array([1, 2, 3, 4]), np.array([7, 8])], [np.ones(4), np.ones(2)])
    assert order.tolist() == [1, 7, 2, 3, 8, 4]
    assert places.tolist() == sorted(places)
