"""Learning, retention and drift: what a run learned and what it lost, with intervals."""

from afterword.evaluation.scores import Scores, evaluate
from afterword.evaluation.suites import Item, Suite, load_suite, register_suite

__all__ = ["Item", "Scores", "Suite", "evaluate", "load_suite", "register_suite"]
