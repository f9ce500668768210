"""The farthest point of the way that keeps the budget, for any way on which more and more is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from afterword.budget.path import walk
from afterword.budget.yardstick import Standing
from afterword.settings.forgetting_budget import Budget


def way(lost_at):
    return lambda share: Standing(learned_nats=share, lost=lost_at(share), drift_nats=lost_at(share))


@settings(max_examples=200, deadline=None)
@given(end=st.floats(0.01, 20), power=st.floats(0.7, 4), limit=st.floats(0.02, 2))
def test_what_is_taken_keeps_the_budget_and_uses_most_of_it(end, power, limit):
    walked = walk(way(lambda share: end * share**power), Budget(limit, "nats"))
    taken = walked.taken
    assert len(walked.points) <= 6
    assert taken in walked.points
    assert taken.standing.lost <= limit
    if end <= limit:
        assert (taken.share, len(walked.points)) == (1.0, 1)
    else:
        assert taken.standing.lost >= 0.5 * limit


def test_where_no_point_keeps_the_budget_nothing_is_taken():
    walked = walk(way(lambda share: 3.0), Budget(0.1, "nats"))
    assert (walked.taken.share, walked.taken.standing.learned_nats) == (0.0, 0.0)


def test_the_end_is_measured_first():
    asked = []
    walk(lambda share: asked.append(share) or Standing(0.0, 0.0, 0.0), Budget(0.1, "nats"))
    assert asked == [1.0]
