"""Learning, retention and drift: what a run learned and what it lost, with intervals.

Importing this package does not import torch, so that pages can read what a measure declares.
"""

from typing import TYPE_CHECKING, Any

from afterword.evaluation.measure import Inputs, Measure, Measured, Metric, Models, Values, of_each_model
from afterword.evaluation.suites import Item, Suite, load_suite, register_suite

if TYPE_CHECKING:
    from afterword.evaluation.questions import written_answers
    from afterword.evaluation.scores import Scores, evaluate

__all__ = ["Inputs", "Item", "Measure", "Measured", "Metric", "Models", "Scores", "Suite", "Values", "evaluate"]
__all__ += ["load_suite", "of_each_model", "register_suite", "written_answers"]


def __getattr__(name: str) -> Any:
    if name == "written_answers":
        from afterword.evaluation.questions import written_answers

        return written_answers
    if name in ("Scores", "evaluate"):
        from afterword.evaluation import scores

        return getattr(scores, name)
    raise AttributeError(f"module 'afterword.evaluation' has no attribute {name!r}")
