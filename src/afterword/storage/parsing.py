"""JSON and YAML that others wrote: whatever is wrong with a text is one ValueError, and none costs more than its size.

Depth and aliases are bounded, so that a file of some bytes can neither end the process nor stand for a billion values.
"""

import json
from typing import Any

_MOST_VALUES = 100_000
"""What the values of a YAML text may come to with every alias written out. A file of settings has some hundred."""
_TOO_DEEP = "brackets are nested too deeply"
_UNFITTING = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML lets through where a value does not fit its tag: `!!bool x`, `!!timestamp x`, `!!int ''`, 2026-13-45."""


def parse_json(text: str | bytes, **how: Any) -> Any:
    """The value of a JSON text; `how` as json.loads takes it. ValueError for what is none, or is nested too deeply."""
    try:
        return json.loads(text, **how)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. ValueError for what is none, is nested too deeply, or whose aliases multiply."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except _UNFITTING as error:
        raise ValueError(f"a value does not fit its kind ({error})") from error
    _refuse_many(value)
    return value


def _refuse_many(value: Any) -> None:
    """ValueError where a value comes to too many with every alias written out; also where an alias holds itself."""
    waiting, found = [value], 0
    while waiting:
        inner = waiting.pop()
        found += 1
        if found + len(waiting) > _MOST_VALUES:
            raise ValueError(f"its aliases come to more than {_MOST_VALUES:,} values. Write the values out")
        if isinstance(inner, dict):
            waiting += [*inner, *inner.values()]
        elif isinstance(inner, list | tuple | set):
            waiting += inner
