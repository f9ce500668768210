"""The search for a rate, on made-up pilots: where it looks, what it takes, and that it can be interrupted."""

import math

import pytest

from afterword.budget.pilots import MOST_PILOTS, Pilot, chosen_rate, rate_at, searched


def pilots_with(best, width=1.0):
    """Pilots that learn most at a rate, less the farther from it; and the rates that were asked for."""
    asked = []

    def pilot_of(rate):
        asked.append(rate)
        far = math.log10(rate / best) / width
        return Pilot(rate, math.exp(-(far**2)), 1.0, 0.1, 0.1, 1.0)

    return pilot_of, asked


@pytest.mark.parametrize("decades", [-1.0, -0.4, 0.0, 0.3, 0.9])
def test_the_best_rate_that_was_tried_has_worse_ones_around_it(decades):
    pilot_of, asked = pilots_with(1e-4 * 10**decades)
    tried = sorted(searched(1e-4, pilot_of), key=lambda pilot: pilot.learning_rate)
    best = max(range(len(tried)), key=lambda i: tried[i].learned_nats)
    assert len(asked) == len(set(asked)) <= MOST_PILOTS
    assert 0 < best < len(tried) - 1 or len(tried) == MOST_PILOTS


def test_a_search_that_was_interrupted_asks_only_for_what_is_missing():
    pilot_of, asked = pilots_with(1e-3)
    whole = searched(1e-4, pilot_of)
    for done in range(len(whole) + 1):
        pilot_of, missing = pilots_with(1e-3)
        assert searched(1e-4, pilot_of, known=whole[:done]) == whole
        assert missing == asked[done:]


def test_the_gentlest_rate_that_teaches_nearly_as_much_is_taken():
    def pilot(rate, learned):
        return Pilot(rate, learned, 1.0, 0.1, 0.1, 1.0)

    assert chosen_rate([pilot(1e-4, 0.96), pilot(3e-4, 1.0), pilot(1e-3, 0.97)]).learning_rate == 1e-4
    assert chosen_rate([pilot(1e-4, 0.5), pilot(3e-4, 1.0)]).learning_rate == 3e-4
    assert chosen_rate([pilot(1e-4, 0.0), pilot(3e-4, -0.1)]) is None


def test_rates_are_half_decades_apart():
    assert [rate_at(1e-4, place) for place in (-2, -1, 0, 1, 2)] == [1e-5, 3.2e-5, 1e-4, 3.2e-4, 1e-3]
