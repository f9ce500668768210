"""Models and suites that are found by a name instead of a path: those that come with the package, and yours.

The one rule: a name says only where something is. What it is, is made when it is asked for.
"""

from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from afterword.errors import CheckpointError, nearest

WEIGHTS = Path(str(resources.files("afterword"))) / "almanac" / "weights"
"""Where the models are that come with the package."""
MODELS = {"almanac-base": WEIGHTS / "base", "almanac-chat": WEIGHTS / "chat"}


def model_folder(name: str) -> str:
    """The folder of an embedded model; every other name, a path or hub id, as it is.

    >>> model_folder("models/mine")
    'models/mine'
    """
    if name in MODELS:
        return str(MODELS[name])
    # Asking the hub for a slip of the finger takes minutes where there is no network.
    if "/" not in name and not Path(name).exists() and (hint := nearest(name, MODELS)):
        raise CheckpointError(f"model_name_or_path: there is no model {name!r}. {hint}Or give a folder.")
    return name


def _almanac() -> Any:
    return import_module("afterword.almanac.files").embedded_suite()


SUITES: dict[str, Callable[[], Any]] = {"almanac": _almanac}
"""What makes a suite, by its name."""


def register_suite(name: str, loader: Callable[[], Any]) -> None:
    """Let `afterword evaluate --suite NAME` find a suite that Python code makes or holds."""
    SUITES[name] = loader
