"""What other packages add under a name, by Python's entry points: `[project.entry-points."afterword.suites"]`.

The one rule: nothing of a package is imported before its name is asked for.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from afterword.errors import ConfigError

GROUP = "afterword"


@cache
def added(kind: str) -> dict[str, EntryPoint]:
    """Everything of one kind (`suites`) that installed packages add, by name."""
    return {point.name: point for point in entry_points(group=f"{GROUP}.{kind}")}


def load(kind: str, name: str) -> Any:
    """What stands behind a name. ConfigError where its package does not give it."""
    point = added(kind)[name]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        problem = (
            f"{kind}: {name!r} is added by an installed package as {point.value}, which cannot be loaded ({error})"
        )
        raise ConfigError(f"{problem}. Install it again, or take it out.") from error
