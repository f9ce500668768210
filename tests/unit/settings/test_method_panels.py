"""A setting of a method is declared once, and what was recorded before it came still counts."""

import dataclasses
import typing

import pytest

from afterword.data import Prompted
from afterword.method_options import OPTIONS, REPLAY_OPTIONS, Option
from afterword.methods import METHODS, Replay
from afterword.methods.method import REPLAYS, _settable
from afterword.settings.adapt import AdaptSettings

PARTS = [part for method in METHODS.values() for part in (method.view, method.objective)] + [
    *REPLAYS.values(),
    Prompted(),
]


def declared(part, name):
    """What the type of a field says besides the type."""
    hint = typing.get_type_hints(type(part), include_extras=True)[name]
    alternatives = (hint, *typing.get_args(hint))
    return next(
        (more for kind in alternatives for more in getattr(kind, "__metadata__", ()) if isinstance(more, Option)), None
    )


def option(of):
    return typing.get_args(of)[1]


def test_every_setting_of_every_method_has_the_one_declaration():
    fields = {(type(part), name): declared(part, name) for part in PARTS for name in _settable(part)}
    assert all(found is option(OPTIONS[name]) for (_, name), found in fields.items())
    assert {name for _, name in fields} == set(OPTIONS)


def test_a_replay_has_its_own():
    hints = typing.get_type_hints(Replay, include_extras=True)
    assert all(hints[name] is kind for name, kind in REPLAY_OPTIONS.items())
    of_objectives = {name for part in REPLAYS.values() for name in _settable(part)}
    assert {name for name, kind in OPTIONS.items() if option(kind).replay_help} == of_objectives


def test_a_run_can_be_told_each_of_them():
    names = {f"replay_{name}" for name in REPLAY_OPTIONS}
    names |= {f"replay_{name}" for name, kind in OPTIONS.items() if option(kind).replay_help}
    panels = {name: AdaptSettings.about(name)["panel"] for name in AdaptSettings.model_fields}
    assert {name for name, panel in panels.items() if panel == "Method"} == {"method", *OPTIONS}
    assert {name for name, panel in panels.items() if panel == "General text"} == {
        "mixture",
        "own_samples",
        "replay",
        *names,
    }


def test_results_recorded_before_a_setting_came_still_count():
    early = {"strategy", "targets", "suffix_tokens", "temperature", "averaging", "join", "bos", "method"}
    of_methods = {"method", "mixture", "replay", *OPTIONS} | {n for n in AdaptSettings.model_fields if "replay_" in n}
    assert {name for name in of_methods if not AdaptSettings.about(name).get("later")} == early


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_defaults_keep_the_bounds(part):
    for item in dataclasses.fields(part):
        if (about := declared(part, item.name)) and (value := getattr(part, item.name)) is not None:
            assert about.at_least is None or value >= about.at_least
            assert about.above is None or value > about.above
            assert about.at_most is None or value <= about.at_most
