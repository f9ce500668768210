"""Learning, retention and drift: what a run learned and what it lost, with intervals."""

from afterword.evaluation.measuring import Scores, evaluate

__all__ = ["Scores", "evaluate"]
