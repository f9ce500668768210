"""Every expected string was written by hand."""

import math

import pytest

from afterword.report import display as numbers


@pytest.mark.parametrize(
    ("metric", "x", "expected"),
    [
        ("exact_match_frac", 0.4123, "41.2%"),
        ("exact_match_frac", 1.0, "100.0%"),
        ("nll_nats", 2.34567, "2.346"),
        ("nll_nats", 12.34567, "12.35"),
        ("nll_nats", 0.0123456, "0.0123"),
        ("nll_nats", 0.0, "0.000"),
        ("nll_nats", -0.5, "−0.500"),
        ("nll_nats", 3e-9, "0.000000"),
        ("student_tokens", 1234567.0, "1,234,567"),
        ("speed/tokens_per_second", 1234.5, "1,234"),
        ("unknown", 123456.7, "123,457"),
        ("nll_nats", None, "–"),
        ("nll_nats", math.nan, "–"),
        ("nll_nats", math.inf, "–"),
    ],
)
def test_values_by_hand(metric, x, expected):
    assert numbers.value(metric, x, numbers.decimals(metric, [x])) == expected


@pytest.mark.parametrize(
    ("metric", "x", "expected"),
    [
        ("exact_match_frac", 0.123, "+12.3 points"),
        ("exact_match_frac", -0.015, "−1.5 points"),
        ("nll_nats", -0.408, "−0.408"),
        ("nll_nats", 0.0, "0.000"),
        ("nll_nats", None, "–"),
    ],
)
def test_changes_carry_their_sign(metric, x, expected):
    assert numbers.change(metric, x, numbers.decimals(metric, [x])) == expected


def test_a_change_that_rounds_to_zero_claims_no_direction():
    assert numbers.change("exact_match_frac", -0.0001, 1) == "0.0 points"
    assert numbers.change("exact_match_frac", 0.0001, 1) == "0.0 points"


def test_an_interval_has_the_digits_of_its_value():
    estimate = {"value": 0.0123, "interval_95": [-1.2, 1.25]}
    places = numbers.places_of("nll_nats", estimate)
    assert numbers.value("nll_nats", estimate["value"], places) == "0.012"
    assert numbers.interval("nll_nats", estimate, places) == "[−1.200, 1.250]"


def test_no_interval_is_a_dash():
    assert numbers.interval("nll_nats", {"value": 1.0, "interval_95": None}, 3) == "–"
    assert numbers.interval("nll_nats", None, 3) == "–"
    assert numbers.interval("nll_nats", {"value": 1.0, "interval_95": [math.nan, math.nan]}, 3) == "–"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.7, "1 min 0 s"), (754.2, "12 min 34 s"), (3600, "1 h 0 min"), (90061, "25 h 1 min")],
)
def test_durations_by_hand(seconds, expected):
    assert numbers.duration(seconds) == expected
