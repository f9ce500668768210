"""YAML files of settings: read with every problem in one message, and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from afterword.errors import ConfigError
from afterword.settings.base import Settings, underscored
from afterword.storage.files import read_settings_file
from afterword.storage.parsing import parse_yaml
from afterword.storage.paths import at_home

_SETTINGS_BYTES = 2**20
"""A file of settings has some hundred lines."""


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of settings. Dashes in names are underscores."""
    try:
        raw = parse_yaml(read_settings_file(Path(at_home(path)), _SETTINGS_BYTES))
    except OSError as error:
        raise ConfigError(f"config: {str(path)!r} cannot be read ({error.strerror}). Give a YAML file.") from error
    except ValueError as error:
        raise ConfigError(f"config: {str(path)!r} is not YAML of settings. {' '.join(str(error).split())}") from error
    if not isinstance(raw, Mapping | None):
        raise ConfigError(f"config: {str(path)!r} holds a {type(raw).__name__}. Give lines of `name: value`.")
    return underscored(cast("Mapping[Any, Any]", raw or {}))


def to_yaml(settings: Settings) -> str:
    """The settings as a file that gives them back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
