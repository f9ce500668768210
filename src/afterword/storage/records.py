"""The small files of a run folder that say what it is: config.yaml, state.json and the like."""

from pathlib import Path
from typing import Any

from afterword.errors import CheckpointError
from afterword.storage.parsing import parse_json, parse_yaml


def read_record(path: Path, damaged: str = "The run folder is damaged.") -> dict[str, Any]:
    """Values by name from a JSON or YAML file. Where it cannot be read, a CheckpointError that ends in `damaged`."""
    parse = parse_json if path.suffix == ".json" else parse_yaml
    try:
        return dict(parse(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read ({reason}). {damaged}") from error
