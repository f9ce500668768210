"""What a run folder holds, read once and checked. Nothing after this file opens a file of the run."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from afterword.errors import CheckpointError
from afterword.report.display import load_table
from afterword.storage.parsing import parse_json, parse_yaml

T = TypeVar("T")
_ADAPT = "Run `afterword adapt` first, or give the folder that it wrote."
_KINDS = {"text": str, "number": (int, float), "whole number": int, "yes or no": bool, "mapping": dict, "list": list}
_COMPLETE = {"status": "complete", "steps": None, "seconds": None}


def load_run(path: Path) -> dict[str, Any]:
    """Read a run folder. CheckpointError, with file and remedy, where a part of it is missing or broken.

    `measured` is None until `afterword evaluate` has run; `is_adapter` tells a peft adapter from a whole model.
    """

    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such run folder. {_ADAPT}")
    if (path / "scores.json").exists() and not any((path / name).exists() for name in ("config.yaml", "data.json")):
        remedy = "Measure the run without -o (`afterword evaluate RUN`), and give the run folder"
        raise CheckpointError(f"{path}: holds scores, but no run that a page could be written of. {remedy}.")
    folder = {"path": path, "name": path.resolve().name, "is_adapter": (path / "adapter_config.json").exists()}
    return folder | {
        "settings": flat_settings(_read(path / "config.yaml", parse_yaml)),
        "command": without_tokens(_read(path / "command.txt", str.strip)),
        "environment": _read(path / "environment.json", _json),
        "metrics": _read(path / "metrics.jsonl", _metric_rows),
        "data": _read(path / "data.json", _json),
        "state": _read(path / "state.json", _json) if (path / "state.json").exists() else _COMPLETE,
        "measured": _measured(path / "scores.json"),
        "budget": _read(path / "budget.json", _json) if (path / "budget.json").exists() else None,
    }


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
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


def _measured(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    found = _read(file, _json, "Delete the file, or measure again with `afterword evaluate`.")
    return found | {"command": without_tokens(found["command"] or ""), "settings": flat_settings(found["settings"])}


def read_file(file: Path, parse: Callable[[str], T], remedy: str) -> T:
    """What a file holds. CheckpointError, with the remedy, where it cannot be read or is not what `parse` takes."""
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}). {remedy}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        said = " ".join(str(error).split()) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{file}: broken ({said}). {remedy}") from error


def _read(file: Path, parse: Callable[[str], Any], remedy: str = _ADAPT) -> Any:
    if not file.exists():
        raise CheckpointError(f"{file}: missing from the run folder. {remedy}")
    shape = load_table("files.yaml")[file.name]
    return read_file(file, lambda text: _fitted(parse(text), shape, ""), remedy)


def _fitted(value: Any, shape: Any, place: str) -> Any:
    """The value with what it lacks filled in; ValueError where it has not the shape that files.yaml gives it."""
    if isinstance(shape, dict):
        fields = _checked(value, "mapping", place)
        return fields | {name.rstrip("?"): _field(fields, name, shape, place) for name in shape}
    if not isinstance(shape, list):
        return _checked(value, shape, place)
    items = _checked(value, "list", place)
    shapes = shape * len(items) if len(shape) == 1 else shape
    if len(items) != len(shapes):
        raise ValueError(f"{place}: must have {len(shapes)} entries, not {len(items)}")
    return [_fitted(item, shapes[i], f"{place}.{i}".lstrip(".")) for i, item in enumerate(items)]


def _field(fields: Mapping[str, Any], name: str, shape: Mapping[str, Any], place: str) -> Any:
    value = fields.get(name.rstrip("?"))
    if value is None and name.endswith("?"):
        return [] if isinstance(shape[name], list) else {} if shape[name] == "mapping" else None
    return _fitted(value, shape[name], f"{place}.{name.rstrip('?')}".lstrip("."))


def _checked(value: Any, kind: Any, place: str) -> Any:
    """`kind` names a kind of value, or is the only value allowed."""
    if isinstance(value, _KINDS[kind]) if kind in _KINDS else value == kind:
        return value
    found = "missing" if value is None else f"not {value!r:.40}"
    raise ValueError(f"{place or 'its content'}: must be {kind}, but is {found}")


def _json(text: str) -> Any:
    # parse_json knows NaN and Infinity; neither was measured, so both become None.
    return parse_json(text, object_hook=_measured_only, parse_constant=lambda _: None)


def _measured_only(row: dict[str, Any]) -> dict[str, Any] | None:
    """An estimate without a value is none, and an interval without a bound supports no conclusion."""
    if row.keys() != {"value", "interval_95"}:
        return row
    if isinstance(row["interval_95"], list) and None in row["interval_95"]:
        row["interval_95"] = None
    return None if row["value"] is None else row


def _metric_rows(text: str) -> list[dict[str, Any]]:
    # A run that was killed, or still writes, leaves half a row behind; whole rows end with a newline.
    # Read as one list, so that the parser's errors count lines.
    rows = _json("[" + ",\n".join(text.split("\n")[:-1]) + "]")
    shape = load_table("files.yaml")["metrics.jsonl row"]
    return [_fitted(row, shape, f"line {number}") for number, row in enumerate(rows, start=1)]
