"""What a setting is follows from its type, however that is written."""

from typing import Annotated, Literal, Optional

import pytest
from pydantic import Field

from afterword.settings.adapt import read_settings
from afterword.settings.base import Settings, alternatives, choices_of, setting, shape_of


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (bool, "flag"),
        (bool | None, "value"),
        (str, "value"),
        (Optional[int], "value"),  # noqa: UP045
        (Literal["a", "dict"], "value"),
        (tuple[str, ...], "list"),
        (tuple[Annotated[float, Field(gt=0)], ...] | None, "list"),
        (Annotated[tuple[int, int], "two"], "list"),
        (dict[str, int], "pairs"),
        (dict[str, tuple[str, ...]] | None, "pairs"),
    ],
)
def test_a_shape_for_every_type(annotation, shape):
    assert shape_of(annotation) == shape


def test_choices_are_those_of_the_type():
    assert choices_of(Annotated[Literal["auto", "off"], 1] | None) == ("auto", "off")
    assert choices_of(str | None) == ()
    assert alternatives(int | Annotated[str, 1] | None) == [int, str, type(None)]


class Tree(Settings):
    """One of each."""

    packing: Literal["auto", "off"] = setting("auto", "A", "Packing.")
    rates: tuple[float, ...] = setting((), "A", "Rates.")
    names: tuple[str, ...] = setting((), "A", "Names.")
    more: dict[str, object] = setting({}, "A", "More.")


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ({"packing": False}, {"packing": "off"}),
        ({"rates": 0.5}, {"rates": (0.5,)}),
        ({"rates": "1,2e-1"}, {"rates": (1.0, 0.2)}),
        ({"names": "a, b"}, {"names": ("a", "b")}),
        ({"more": ["a-b=1e-3", "c=x"]}, {"more": {"a_b": 1e-3, "c": "x"}}),
        ({"more": {"a": "2e5"}}, {"more": {"a": 2e5}}),
    ],
)
def test_text_becomes_what_the_setting_is(raw, read):
    settings = read_settings(raw, Tree)
    assert {name: getattr(settings, name) for name in read} == read
