"""A budget is a number with its unit, or one clear sentence."""

import pytest

from afterword.errors import ConfigError
from afterword.settings.forgetting_budget import DEFAULTS, Budget, budget_of


@pytest.mark.parametrize(
    ("text", "points", "limit", "unit"),
    [
        ("0.1nats", False, 0.1, "nats"),
        ("0.1 nats", True, 0.1, "nats"),
        ("2 points", True, 2.0, "points"),
        ("1Point", True, 1.0, "points"),
        ("3", True, 3.0, "points"),
        ("0.3", False, 0.3, "nats"),
        ("5e-2nats", False, 0.05, "nats"),
    ],
)
def test_what_is_said(text, points, limit, unit):
    assert budget_of(text, points=points) == Budget(limit, unit)


@pytest.mark.parametrize(("points", "unit"), [(True, "points"), (False, "nats")])
def test_where_nothing_is_said_the_default_is_known_as_one(points, unit):
    assert budget_of(None, points=points) == Budget(DEFAULTS[unit], unit, given=False)


@pytest.mark.parametrize("text", ["", "much", "-1nats", "0nats", "9nats", "101points", "1 nats 2", "0.1bits"])
def test_anything_else_is_one_sentence(text):
    with pytest.raises(ConfigError, match="forgetting_budget: "):
        budget_of(text, points=True)


def test_points_need_something_to_be_measured_on():
    with pytest.raises(ConfigError, match="Give a suite"):
        budget_of("2points", points=False)
