"""Afterword: teach a post-trained language model new documents, keep what it knew, and show both.

Importing this package imports neither torch nor transformers; that happens at the first use of a name that
needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from afterword.errors import AfterwordError, CheckpointError, ConfigError, DataError, TrainingError

if TYPE_CHECKING:
    from afterword.alignment.run import align
    from afterword.evaluation import evaluate
    from afterword.methods import METHODS
    from afterword.report import write_report
    from afterword.runs import adapt
    from afterword.training import AdaptationTrainer, training_arguments

__version__ = "0.1.0"
_HOMES = {"METHODS": "methods", "align": "alignment.run", "evaluate": "evaluation", "write_report": "report"}
_HOMES |= {"adapt": "runs", **dict.fromkeys(("AdaptationTrainer", "training_arguments"), "training")}
__all__ = ["METHODS", "AdaptationTrainer", "AfterwordError", "CheckpointError", "ConfigError", "DataError"]
__all__ += ["TrainingError", "adapt", "align", "evaluate", "training_arguments", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'afterword' has no attribute {name!r}")
    return getattr(importlib.import_module(f"afterword.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
