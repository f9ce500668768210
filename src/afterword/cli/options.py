"""Options: a command has one for every field of its settings, with the help text that stands there."""

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from afterword.named_models import NAMES
from afterword.settings.base import Settings, choices_of, shape_of
from afterword.settings.yaml_files import load_yaml
from afterword.storage.paths import at_home

CALLED = f"A folder, a GGUF file, a hub id, or one of {', '.join(NAMES)}"
DOCUMENTS = "Files, folders, globs or data-set ids."


def path_of(text: str) -> Path:
    """A path that only the command line takes. Those of settings are read by the settings."""
    return Path(at_home(str(text)))


Model = Annotated[str | None, typer.Argument(help=f"Model to start from. {CALLED}.")]
Documents = Annotated[list[str] | None, typer.Argument(help=DOCUMENTS)]
Config = Annotated[
    Path | None, typer.Option(help="YAML file of settings. The command line wins.", parser=path_of, metavar="PATH")
]
Overrides = dict[str, Any] | None
"""Values of the options of settings, as they were typed."""


def command_line() -> str:
    """The command as it was given, for the records of a run."""
    return shlex.join(["afterword", *sys.argv[1:]])


def told(config: Path | None, overrides: Overrides, **given: object) -> dict[str, Any]:
    """The raw tree of settings: the file, the options over it, and over both the arguments that were given."""
    tree = {**(load_yaml(config) if config else {}), **(overrides or {})}
    return {**tree, **{name: value for name, value in given.items() if value}}


def with_settings(
    kind: type[Settings],
    command: Callable[..., None],
    *,
    besides: type[Settings] | None = None,
    without: Collection[str] = (),
) -> Callable[..., None]:
    """Give a command an option for every field of its settings that it does not name itself, in `overrides`.

    `besides`: other settings that it can be told too, where it has none of the name; but for those in `without`.
    """
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "overrides"]
    named = {p.name for p in own} | {"model_name_or_path"}
    fields = {name: (field, kind) for name, field in kind.model_fields.items()}
    if besides:
        others = {name: (field, besides) for name, field in besides.model_fields.items() if name not in without}
        fields |= {name: other for name, other in others.items() if name not in fields}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field, of))
        for name, (field, of) in fields.items()
        if name not in named
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        overrides = {p.name: values.pop(p.name) for p in options}
        command(**values, overrides={k: v for k, v in overrides.items() if v not in (None, [])})

    wrapped.__signature__ = inspect.Signature([*own, *options])  # pyright: ignore[reportAttributeAccessIssue]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
    return wrapped


def _option(name: str, field: FieldInfo, kind: type[Settings]) -> Any:
    """The typer annotation of a setting. Values stay text: the one validation is that of the settings."""
    flag, shape = f"--{name.replace('_', '-')}", shape_of(field.annotation)
    look: Mapping[str, Any] = {
        "help": _help(field),
        "rich_help_panel": kind.about(name)["panel"],
        "show_default": False,
    }
    if shape == "flag":
        return Annotated[bool | None, typer.Option(f"{flag}/--no{flag[1:]}", **look)]
    metavar = "KEY=VALUE" if shape == "pairs" else name.rpartition("_")[2].upper()
    option = typer.Option(flag, metavar=metavar, **look)
    return Annotated[str | None, option] if shape == "value" else Annotated[list[str] | None, option]


def _help(field: FieldInfo) -> str:
    """The text that a setting is declared with, the words that it can be, and its default."""
    text, default = str(field.description), field.get_default()
    choices = choices_of(field.annotation)
    if not all(word in text for word in choices):
        text += f" One of {', '.join(choices)}."
    if default is False or default in (None, (), {}, ""):
        return text
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text.removesuffix('.')} (default: {shown})."
