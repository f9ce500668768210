"""The settings of `afterword adapt` that methods have, and those that the replay of general text has."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import create_model

from afterword.method_options import OPTIONS, REPLAY_OPTIONS, Option
from afterword.settings.base import Settings, later, setting

S = TypeVar("S", bound=Settings)


def with_method_options(base: type[S]) -> type[S]:
    """`base` with every setting of a view or an objective. None: the method says it."""
    return _with(base, {name: _field("Method", declared) for name, declared in OPTIONS.items()})


def with_replay_options(base: type[S]) -> type[S]:
    """`base` with every setting of a replay, as `replay_NAME`. None: the replay says it."""
    own = {name: _field("General text", declared) for name, declared in REPLAY_OPTIONS.items()}
    for name, declared in OPTIONS.items():
        if _option_of(declared).replay_help:
            own[name] = _field("General text", declared, replay=True)
    return _with(base, {f"replay_{name}": field for name, field in own.items()})


def _with(base: type[S], fields: Mapping[str, Any]) -> type[S]:
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **dict(fields))


def _option_of(declared: object) -> Option:
    return next(part for part in get_args(declared) if isinstance(part, Option))


def _field(panel: str, declared: object, *, replay: bool = False) -> tuple[Any, Any]:
    """A field as pydantic takes it: the type, or None, and the rest."""
    option, kind = _option_of(declared), get_args(declared)[0] | None
    bounds: dict[str, Any] = {"ge": option.at_least, "gt": option.above, "le": option.at_most}
    rules = {name: bound for name, bound in bounds.items() if bound is not None}
    if option.from_the_start and not replay:
        return kind, setting(None, panel, option.help, **rules)
    return kind, later(panel, option.replay_help if replay else option.help, **rules)
