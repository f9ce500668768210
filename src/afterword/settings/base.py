"""What all trees of settings share: how a setting is declared, and how all that is wrong with one is told at once."""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from afterword.errors import ConfigError, nearest
from afterword.settings.retired import Retired
from afterword.storage.parsing import parse_yaml
from afterword.storage.paths import at_home

Shape = Literal["flag", "value", "list", "pairs"]
"""What a setting is on the command line and in YAML: yes or no, one value, several values, or values by name."""
_SCIENTIFIC = re.compile(r"-?\d+(\.\d*)?[eE][-+]?\d+")
"""YAML takes 1e-8 for text, and so does the command line."""


def setting(default: Any, panel: str, text: str, *, weights: bool = True, **rules: Any) -> Any:
    """A field with its panel on the command line, its help text, and whether it can change the weights."""
    return Field(default, description=text, json_schema_extra={"panel": panel, "weights": weights}, **rules)


def later(
    panel: str, text: str, *, exact: tuple[str | bool, ...] = (), default: str | bool | None = None, **rules: Any
) -> Any:
    """A setting that came after results were recorded: where it is not given, they still count.

    `exact`: values that count as none given, the default among them.
    """
    assert default is None or default in exact, "results were recorded without it"
    about: dict[str, Any] = {"panel": panel, "weights": True, "later": True, "exact": exact}
    return Field(default, description=text, json_schema_extra=about, **rules)


def shape_of(annotation: object) -> Shape:
    """What a setting with this type is.

    >>> shape_of(bool), shape_of(int | None), shape_of(tuple[str, ...]), shape_of(dict[str, int] | None)
    ('flag', 'value', 'list', 'pairs')
    """
    kinds = [get_origin(part) or part for part in alternatives(annotation)]
    if dict in kinds:
        return "pairs"
    # A flag that can also be not given takes a value: --swap true.
    return "list" if tuple in kinds else "flag" if kinds == [bool] else "value"


def alternatives(annotation: object) -> list[object]:
    """The types that a union is of, without what is annotated to them; of any other type, itself.

    >>> alternatives(Annotated[int, "more"] | None)
    [<class 'int'>, <class 'NoneType'>]
    """
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for each in get_args(annotation) for part in alternatives(each)]
    return [annotation]


def choices_of(annotation: object) -> tuple[str, ...]:
    """The words that a setting with this type can be, where it names them."""
    literals = (part for part in alternatives(annotation) if get_origin(part) is Literal)
    return tuple(word for literal in literals for word in get_args(literal))


def _holds_numbers(annotation: object) -> bool:
    """Whether it is a list of numbers."""
    lists = (part for part in alternatives(annotation) if get_origin(part) is tuple)
    inner = (kind for each in lists for part in get_args(each) if part is not ... for kind in alternatives(part))
    return any(kind is int or kind is float for kind in inner)


class Settings(BaseModel):
    """What all trees of settings share: unknown names are errors, one value is a list of one, ~ is the home folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    retired: ClassVar[Retired] = Retired()
    """What the tree had in versions before."""

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: ValidationInfo) -> Any:
        value, annotation = at_home(value), cls.model_fields[str(info.field_name)].annotation
        if value is False and "off" in choices_of(annotation):
            return "off"  # A bare off is false in YAML.
        shape = shape_of(annotation)
        if shape == "list":
            alone = isinstance(value, int | float) and _holds_numbers(annotation)
            return (value,) if alone else at_home(listed(value))
        return _pairs(value) if shape == "pairs" else value

    @classmethod
    def about(cls, name: str) -> Mapping[str, Any]:
        """What a setting's declaration says: its panel, whether it changes the weights, and see `later`."""
        return cast("Mapping[str, Any]", cls.model_fields[name].json_schema_extra)

    @classmethod
    def weighing(cls) -> list[str]:
        """Names of the settings that can change the weights."""
        return [name for name in cls.model_fields if cls.about(name)["weights"]]

    @classmethod
    def came_later(cls) -> set[str]:
        """Names of the settings that came after results were recorded (see `later`)."""
        return {name for name in cls.model_fields if cls.about(name).get("later")}

    @classmethod
    def of_panel(cls, panel: str) -> tuple[str, ...]:
        """The names of the settings of a panel of --help."""
        return tuple(name for name in cls.model_fields if cls.about(name)["panel"] == panel)

    @classmethod
    def without_effect(cls, name: str, value: Any) -> Any:
        """None for a value of a setting that counts as none given; any other value as it is."""
        retired = cls.retired.of_value(name, value)
        same = retired.same_weights if retired else value in cls.about(name).get("exact", ())
        return None if same else value

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        yield from ()


def _pairs(value: Any) -> Any:
    """Values by name, from those or from texts KEY=VALUE; what is neither stays as it is."""
    pairs = key_values(cast("Sequence[str]", value)) if isinstance(value, list | tuple) else value
    if not isinstance(pairs, dict):
        return pairs
    by_name = cast("dict[Any, Any]", at_home(pairs))
    return {name: float(v) if _SCIENTIFIC.fullmatch(str(v)) else v for name, v in by_name.items()}


def listed(value: Any) -> Any:
    """A list as it may be given: one value, several, and several in one text between commas.

    A comma in the name of something that is there belongs to the name. What is no list and no text stays as it is.
    """
    if not isinstance(value, str | list | tuple):
        return value
    items = [value] if isinstance(value, str) else cast("Sequence[Any]", value)
    return tuple(part for item in items for part in (_between_commas(item) if isinstance(item, str) else [item]))


def _between_commas(text: str) -> list[str]:
    parts, found = text.split(","), list[str]()
    while parts:
        # The longest name that is there, or the first part.
        known = (n for n in range(len(parts), 1, -1) if _is_there(",".join(parts[:n])))
        taken = next(known, 1)
        found.append(",".join(parts[:taken]).strip() if taken == 1 else ",".join(parts[:taken]))
        parts = parts[taken:]
    return [part for part in found if part] or [text]


def _is_there(name: str) -> bool:
    try:
        return Path(name).expanduser().exists() or bool(glob.has_magic(name) and glob.glob(name, recursive=True))
    except (OSError, ValueError):
        return False  # Longer than a name can be, or with a zero byte: a text.


def underscored(raw: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping with the dashes in its names as underscores."""
    return {str(name).replace("-", "_"): value for name, value in raw.items()}


S = TypeVar("S", bound=Settings)


def validated(raw: Mapping[str, Any], kind: type[S]) -> S:
    """Settings from a raw tree. Every problem is in the one ConfigError."""
    given = _without_retired(raw, kind)
    problems: list[str] = []
    try:
        settings = kind.model_validate(given)
    except ValidationError as error:
        problems = [_problem(detail, kind) for detail in error.errors()]
        # The rest is checked too, so that a person mends everything at once.
        settings, _ = without_problems(given, kind)
    told = {problem.split(":")[0] for problem in problems}
    problems += [problem for problem in settings.relations() if problem.split(":")[0] not in told]
    if problems:
        raise ConfigError(problems)
    return settings


def without_problems(raw: Mapping[str, Any], kind: type[S]) -> tuple[S, set[str]]:
    """The settings of a raw tree that are right, each alone, and the names of the others, which are not given then."""
    given = _without_retired(raw, kind)
    try:
        return kind.model_validate(given), set()
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors()}
        return kind.model_validate({name: value for name, value in given.items() if name not in wrong}), wrong


def _without_retired(raw: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """A raw tree without the settings of before that had no effect."""
    known, retired = kind.model_fields, kind.retired
    return {name: value for name, value in raw.items() if name in known or not retired.passes_over(name, value)}


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Values by name from texts KEY=VALUE, each read as YAML has it. ValueError for a text without an equals sign."""
    wrong = [pair for pair in pairs if "=" not in str(pair)]
    if wrong:
        raise ValueError(f"must be KEY=VALUE, and {wrong[0]!r} has no '='")
    split = [pair.split("=", 1) for pair in pairs]
    return {name.replace("-", "_"): _value(name, value) for name, value in split}


def _value(name: str, text: str) -> Any:
    """A text as YAML has it; a joiner that is not quoted as it stands, because YAML drops the blanks that it is of."""
    if name == "joiner" and text[:1] not in ("'", '"'):
        return text
    try:
        value = parse_yaml(text)
    except ValueError as error:
        remedy = "Put the value in single quotes"
        raise ValueError(f"{name}: the value {text!r} cannot be read as YAML. {remedy}") from error
    return text if isinstance(value, str) and ",joiner=" in text else value


def _problem(detail: ErrorDetails, kind: type[Settings]) -> str:
    name, given = ".".join(str(part) for part in detail["loc"]), detail["input"]
    if detail["type"] == "extra_forbidden":
        if gone := kind.retired.names.get(name):
            return f"{name}: {gone.sentence}"
        hint = nearest(name, kind.model_fields) or "A field of TrainingArguments belongs under trainer."
        return f"{name}: no such setting. {hint}".rstrip()
    if gone := kind.retired.of_value(name, given):
        return f"{name}: {gone.sentence}"
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    hint = nearest(str(given), re.findall(r"'(\w+)'", rule)) if detail["type"] == "literal_error" else ""
    return f"{name}: {rule}, got {given!r}. {hint}".rstrip()
