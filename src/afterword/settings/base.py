"""What all trees of settings share: how a setting is declared, and how all that is wrong with one is told at once."""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from afterword.errors import ConfigError, nearest
from afterword.storage.parsing import parse_yaml
from afterword.storage.paths import at_home


def setting(default: Any, panel: str, text: str, *, weights: bool = True, **rules: Any) -> Any:
    """A field with its panel on the command line, its help text, and whether it can change the weights."""
    return Field(default, description=text, json_schema_extra={"panel": panel, "weights": weights}, **rules)


def later(panel: str, text: str, *, exact: tuple[str, ...] = (), default: str | None = None, **rules: Any) -> Any:
    """A setting that came after results were recorded: where it is not given, they still count.

    `exact`: values that count as none given, the default among them.
    """
    assert default is None or default in exact, "results were recorded without it"
    about: dict[str, Any] = {"panel": panel, "weights": True, "later": True, "exact": exact}
    return Field(default, description=text, json_schema_extra=about, **rules)


class Settings(BaseModel):
    """What all trees of settings share: unknown names are errors, one value is a list of one, ~ is the home folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: Any, info: Any) -> Any:
        value = at_home(value)
        annotation = str(cls.model_fields[info.field_name].annotation)
        if value is False and "'off'" in annotation:
            return "off"  # A bare off is false in YAML.
        if "dict" not in annotation:
            if "tuple" not in annotation:
                return value
            alone = isinstance(value, int | float) and re.search("float|int", annotation)
            return (value,) if alone else at_home(listed(value))
        pairs = key_values(value) if isinstance(value, list | tuple) else value
        if not isinstance(pairs, dict):
            return pairs
        # YAML takes 1e-8 for text, and so does the command line.
        number = re.compile(r"-?\d+(\.\d*)?[eE][-+]?\d+")
        pairs = at_home(pairs)
        return {k: float(v) if number.fullmatch(str(v)) else v for k, v in pairs.items()}

    @classmethod
    def without_effect(cls, name: str, value: Any) -> Any:
        """None for a value of a setting that counts as none given; any other value as it is."""
        fields: Any = cls.model_fields
        return None if value in fields[name].json_schema_extra.get("exact", ()) else value

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        yield from ()


def listed(value: Any) -> Any:
    """A list as it may be given: one value, several, and several in one text between commas.

    A comma in the name of something that is there belongs to the name. What is no list and no text stays as it is.
    """
    if not isinstance(value, str | list | tuple):
        return value
    items = [value] if isinstance(value, str) else value
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


S = TypeVar("S", bound=Settings)


def validated(raw: Mapping[str, Any], kind: type[S]) -> S:
    """Settings from a raw tree. Every problem is in the one ConfigError."""
    problems: list[str] = []
    try:
        settings = kind.model_validate(dict(raw))
    except ValidationError as error:
        problems = [_problem(detail, kind) for detail in error.errors()]
        # The rest is checked too, so that a person mends everything at once.
        settings, _ = without_problems(raw, kind)
    told = {problem.split(":")[0] for problem in problems}
    problems += [problem for problem in settings.relations() if problem.split(":")[0] not in told]
    if problems:
        raise ConfigError(problems)
    return settings


def without_problems(raw: Mapping[str, Any], kind: type[S]) -> tuple[S, set[str]]:
    """The settings of a raw tree that are right, each alone, and the names of the others, which are not given then."""
    try:
        return kind.model_validate(dict(raw)), set()
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors()}
        return kind.model_validate({name: value for name, value in raw.items() if name not in wrong}), wrong


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


def _problem(detail: Any, kind: type[Settings]) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        hint = nearest(name, kind.model_fields) or "A field of TrainingArguments belongs under trainer."
        return f"{name}: no such setting. {hint}".rstrip()
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    hint = nearest(str(detail["input"]), re.findall(r"'(\w+)'", rule)) if detail["type"] == "literal_error" else ""
    return f"{name}: {rule}, got {detail['input']!r}. {hint}".rstrip()
