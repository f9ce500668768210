"""What a run folder holds, read once and checked. Nothing after this file opens a file to read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from afterword.errors import CheckpointError
from afterword.types import Score, Skipped

_ADAPT = "Run `afterword adapt` first, or give the folder that it wrote."
_EVALUATE = "Delete the file, or measure again with `afterword evaluate`."

Json = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One question, answered by the base model and by the adapted one."""

    setting: str
    question: str
    expected: tuple[str, ...]
    document: str | None = None
    prompt: str | None = None
    before: str
    after: str
    before_correct: bool
    after_correct: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt without a right answer, continued before and after."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """scores.json: everything that `afterword evaluate` found."""

    format: Literal[1]
    created: str | None = None
    command: str = ""
    reference: str | None = None
    settings: Json = field(default_factory=dict[str, Any])
    scores: tuple[Score, ...]
    samples: tuple[Sample, ...] = ()
    answers: tuple[Answer, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """One file or data set that documents came from."""

    source: str
    documents: int
    characters: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many rows were not used, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """data.json: what was read, what was skipped, and what became of it."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()
    """The first ones; `skipped_total` counts all."""
    skipped_total: int | None = None
    content_sha256: str | None = None
    documents: int
    characters: int | None = None
    tokens: int | None = None
    windows: int | None = None
    split_documents: int | None = None
    cut_sentences: int | None = None
    targets_first_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """state.json: how far the run came."""

    status: str = "complete"
    steps: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run as its folder tells it. `measured` is None until `afterword evaluate` has run."""

    path: Path
    settings: Json
    command: str
    environment: Json
    metrics: tuple[Json, ...]
    data: Data
    state: State
    measured: Measurements | None
    is_adapter: bool
    """The folder holds a peft adapter, not a whole model."""

    @property
    def name(self) -> str:
        """The folder's own name, also where the path is `.`."""
        return self.path.resolve().name


def load_run(path: Path) -> RunFolder:
    """Read a run folder. CheckpointError, with file and remedy, where a part of it is missing or broken."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such run folder. {_ADAPT}")
    return RunFolder(
        path=path,
        settings=flat_settings(_read(path / "config.yaml", _yaml_mapping)),
        command=without_tokens(_read(path / "command.txt", str.strip)),
        environment=_read(path / "environment.json", _json_object),
        metrics=_read(path / "metrics.jsonl", _metric_rows),
        data=_read(path / "data.json", _record_of(Data)),
        state=_read_optional(path / "state.json", _record_of(State), _ADAPT) or State(),
        measured=_read_optional(path / "scores.json", _record_of(Measurements), _EVALUATE),
        is_adapter=(path / "adapter_config.json").exists(),
    )


def flat_settings(settings: Json) -> dict[str, Any]:
    """Nested settings as dotted names, without access tokens: pages are passed on, tokens must not be."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in flat_settings(value).items()}
        elif not str(name).endswith("hub_token"):
            flat[str(name)] = value
    return flat


def without_tokens(command: str) -> str:
    """A command line with the values of access tokens hidden."""
    return re.sub(r"(hub[_-]token[= ]+)\S+", r"\1(hidden)", command)


def _read(file: Path, parse: Callable[[str], T], remedy: str = _ADAPT) -> T:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: missing from the run folder. {remedy}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}). {remedy}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: broken ({error}). {remedy}") from error


def _read_optional(file: Path, parse: Callable[[str], T], remedy: str) -> T | None:
    return _read(file, parse, remedy) if file.exists() else None


def _json_object(text: str) -> Json:
    # json.loads knows NaN and Infinity; neither was measured, so both become None.
    value = json.loads(text, object_hook=_measured_only, parse_constant=lambda _: None)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _measured_only(row: dict[str, Any]) -> dict[str, Any] | None:
    """An estimate without a value is none, and an interval without a bound supports no conclusion."""
    if row.keys() != {"value", "interval_95"}:
        return row
    if isinstance(row["interval_95"], list) and None in row["interval_95"]:
        row["interval_95"] = None
    return None if row["value"] is None else row


def _record_of(kind: type[T]) -> Callable[[str], T]:
    """A parser of JSON that checks every field of a dataclass and ignores what it does not know."""

    def parse(text: str) -> T:
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(kind).validate_python(_json_object(text))
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            raise ValueError("; ".join(problems)) from error

    return parse


def _yaml_mapping(text: str) -> Json:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(value, dict):
        raise ValueError(f"expected settings, found {type(value).__name__}")
    return value


def _metric_rows(text: str) -> tuple[Json, ...]:
    # A run that was killed, or still writes, leaves half a row behind; whole rows end with a newline.
    lines = text.split("\n")[:-1]
    return tuple(_metric_row(number, line) for number, line in enumerate(lines, start=1))


def _metric_row(number: int, line: str) -> Json:
    try:
        row = _json_object(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row.get("step"), int):
        raise ValueError(f"line {number}: it has no step")
    return row
