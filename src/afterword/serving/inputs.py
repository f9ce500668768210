"""What an export is given, looked at before the libraries are imported, which takes seconds."""

from pathlib import Path

from afterword.errors import CheckpointError, ConfigError
from afterword.named_models import is_of_hub, refuse_name
from afterword.serving.converter import find_converter
from afterword.settings.export import ExportSettings


def check(settings: ExportSettings) -> Path:
    """The converter. CheckpointError where there is no such model here; ConfigError with all where more is wrong."""
    problems, converter = list[str](), None
    try:
        converter = find_converter(settings.converter)
    except ConfigError as error:
        problems += error.problems
    try:
        _refuse_model(settings.model_name_or_path)
    except CheckpointError as error:
        if converter:
            raise
        problems.insert(0, str(error))
    if converter is None:
        raise ConfigError(problems)
    return converter


def _refuse_model(name: str) -> None:
    refuse_name(name)
    if is_of_hub(name):
        remedy = "Load it and save_pretrained it into a folder, and give that"
        raise CheckpointError(f"model_name_or_path: {name!r} is not here, and a folder is converted. {remedy}.")
