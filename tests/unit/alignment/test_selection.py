"""Every rule's choice by hand, counts, quotas, ties; and that nothing depends on the order of reading."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from afterword.alignment.sample_scores import Scores
from afterword.alignment.selection import drawn, quotas_of, ranked
from afterword.errors import ConfigError

# id: plain and templated loss. The ratios are 2, 3, 0.5, 4, 1, 1.5; the median of the plain losses is 2.5.
LOSSES = {"a": (1.0, 2.0), "b": (2.0, 6.0), "c": (4.0, 2.0), "d": (3.0, 12.0), "e": (2.0, 2.0), "f": (4.0, 6.0)}
SAMPLES: list[Any] = [SimpleNamespace(id=name, source="one" if name in "abc" else "two") for name in LOSSES]
SCORES = [Scores(*LOSSES[sample.id]) for sample in SAMPLES]


def order(rule: Any, seed: int = 0, samples: Any = SAMPLES) -> str:
    scores = [Scores(*LOSSES[sample.id]) for sample in samples]
    return "".join(sample.id for sample in ranked(samples, scores, rule, seed))


def kept(candidates: str, count: int, **quotas: float) -> str:
    by_id = {sample.id: sample for sample in SAMPLES}
    return "".join(sample.id for sample in drawn([by_id[name] for name in candidates], count, quotas))


def test_perplexity_keeps_the_easiest_first_and_ties_go_by_id():
    assert order("perplexity") == "acebfd"


def test_format_score_keeps_what_is_known_and_formatted_worst():
    # d has the highest ratio of all, and a plain loss above the median.
    assert order("format_score") == "bae"


def test_a_plain_loss_at_the_median_is_known():
    three = SAMPLES[:3]
    # Losses 1, 2, 4: b is the median itself.
    assert order("format_score", samples=three) == "ba"


def test_random_is_a_shuffle_by_the_seed():
    assert sorted(order("random")) == sorted(LOSSES)
    assert order("random", seed=3) == order("random", seed=3) != order("random", seed=4)
    assert len({order("random", seed=seed) for seed in range(20)}) > 15


@pytest.mark.parametrize("rule", ["perplexity", "format_score", "random"])
def test_the_order_of_reading_changes_nothing(rule):
    shuffled = random.Random(1).sample(SAMPLES, len(SAMPLES))
    assert [s.id for s in shuffled] != [s.id for s in SAMPLES]
    assert order(rule, samples=shuffled) == order(rule)


def test_counts_take_the_first_and_at_most_all():
    assert kept("fedcba", 2) == "fe"
    assert kept("fedcba", 9) == "fedcba"


def test_quotas_are_numbers_or_shares_and_the_others_share_the_rest():
    # One of source one; the rest, of source two, by rank.
    assert kept("abcdef", 4, one=1) == "adef"
    assert kept("abcdef", 4, one=0.5) == "abde"
    # A source gives what it has, and the others fill up only what was left to them.
    assert kept("abcdef", 6, one=2) == "abdef"
    assert kept("adef", 4, one=3) == "ad"
    # Every source with a quota: the count is what they come to.
    assert kept("abcdef", 6, one=1, two=1) == "ad"


def test_quotas_that_cannot_be_met_are_told():
    with pytest.raises(ConfigError, match="quotas: come to 5 samples of 4"):
        kept("abcdef", 4, one=3, two=0.5)
    with pytest.raises(ConfigError, match="quotas: leave nothing of 4 samples"):
        kept("abcdef", 4, one=0.01, two=0.01)


def test_quotas_name_sources_with_dashes_as_the_command_line_gives_them():
    assert quotas_of({"my_file.jsonl": 3, "b": 0.5}, ["my-file.jsonl", "b"]) == {"my-file.jsonl": 3, "b": 0.5}
    with pytest.raises(ConfigError, match=r"quotas.genral.jsonl: no source.*Did you mean general.jsonl"):
        quotas_of({"genral.jsonl": 3}, ["general.jsonl", "other.jsonl"])
