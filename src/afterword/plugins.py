"""What others add: by Python's entry points, or as an object in a module, `package.module:NAME`.

    [project.entry-points."afterword.suites"]
    towns = "my_package.suites:make_towns"

The one rule: nothing of a package is imported before its name is asked for.
"""

import os
import re
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from afterword.errors import AfterwordError, ConfigError

GROUP = "afterword"
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@cache
def added(kind: str) -> dict[str, EntryPoint]:
    """Everything of one kind (`suites`, `methods`, `measures`, `documents`) that installed packages add, by name."""
    return {point.name: point for point in entry_points(group=f"{GROUP}.{kind}")}


def load(kind: str, name: str) -> Any:
    """What stands behind a name that a package adds. ConfigError where the package does not give it."""
    point = added(kind)[name]
    try:
        return point.load()
    except AfterwordError:
        raise
    except Exception as error:  # Of another package, which may raise whatever it likes.
        problem = f"{kind}: {name!r} is added by an installed package as {point.value}, which cannot be loaded"
        raise ConfigError(f"{problem} ({_said(error)}). Install it again, or take it out.") from error


def is_place(place: object) -> bool:
    """Whether it is written as `package.module:NAME`, and no object itself."""
    return bool(_PLACE.fullmatch(str(place)))


def imported(setting: str, place: str) -> Any:
    """The object at `package.module:NAME`, a module of the working folder included. ConfigError where there is none."""
    rule = f"Give package.module:NAME of a module in this folder ({os.getcwd()}), in PYTHONPATH, or installed"
    # Whoever hands over the object itself is told what is wanted, too.
    if not is_place(place):
        raise ConfigError(f"{setting}: {place!r} cannot be loaded (it is not of this form). {rule}.")
    module, _, name = place.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(import_module(module), name)
    except AfterwordError:  # It says what is wrong with what the module declares.
        raise
    except Exception as error:  # The module is the person's own, and may raise whatever it likes.
        said = f"{type(error).__name__}: {_said(error)}"
        raise ConfigError(f"{setting}: {place!r} cannot be loaded ({said}). {rule}.") from error


def _said(error: Exception) -> str:
    """What it says, on one line."""
    return " ".join(("; ".join(error.problems) if isinstance(error, ConfigError) else str(error)).split())
