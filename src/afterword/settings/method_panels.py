"""The panels "Method" and "General text" of `afterword adapt`: every setting that a method can have."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import create_model

from afterword.method_options import OPTIONS, REPLAY_OPTIONS, Option
from afterword.settings.base import Settings, later, setting

S = TypeVar("S", bound=Settings)


def with_method_options(base: type[S]) -> type[S]:
    """A tree of settings with all of `base`, the settings of methods, and those of general text beside them.

    Each is None where it was not given: then the method says it.
    """
    fields = {**dict(_of_methods()), **dict(_of_general_text())}
    definitions: dict[str, Any] = fields
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **definitions)


def _of_methods() -> Iterator[tuple[str, Any]]:
    for name, declared in OPTIONS.items():
        yield name, _field("Method", declared)


def _of_general_text() -> Iterator[tuple[str, Any]]:
    panel = "General text"
    files = "NAME=FILE,kind=KIND,tokens=SHARE; in YAML NAME: {files, kind, tokens, …}."
    yield "mixture", (dict[str, Any] | None, later(panel, files))
    yield "replay", (str | None, later(panel, "What to do with it: prediction, kl, reverse_kl, swap."))
    for name, declared in REPLAY_OPTIONS.items():
        yield f"replay_{name}", _field(panel, declared)
    for name, declared in OPTIONS.items():
        if about := _option_of(declared).replay_help:
            yield f"replay_{name}", _field(panel, declared, about)


def _option_of(declared: object) -> Option:
    return next(part for part in get_args(declared) if isinstance(part, Option))


def _field(panel: str, declared: object, help_of_replay: str = "") -> tuple[Any, Any]:
    """A field as pydantic takes it: the type, or None, and the rest."""
    option, kind = _option_of(declared), get_args(declared)[0] | None
    bounds = {"ge": option.at_least, "gt": option.above, "le": option.at_most}
    rules = {name: bound for name, bound in bounds.items() if bound is not None}
    if option.from_the_start and not help_of_replay:
        return kind, setting(None, panel, option.help, **rules)
    return kind, later(panel, help_of_replay or option.help, **rules)
