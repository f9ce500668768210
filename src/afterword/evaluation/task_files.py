"""Task files of a person's own, found and read from anywhere.

The harness looks for a task's data from the folder that it was started in, so that a task file works in one place
only. Here the data are looked for there, then from the task's own folder and every folder above it, then by their name
beside the task.
"""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_LOCAL_READERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "xml")
"""What `dataset_path` is where the data are files: of a data set on the hub, files are named from its root."""


class MissingDataError(Exception):
    """A task's data are nowhere. The text is a whole problem, with its remedy."""


def task_files(folder: Path) -> list[Path]:
    """Every file in a folder, or below it, that may hold a task."""
    return sorted(path for path in folder.rglob("*.yaml") if not path.name.startswith((".", "_")))


def with_found_data(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """A task's configuration with whole paths to its data. MissingDataError where one is nowhere."""
    kwargs = config.get("dataset_kwargs") or {}
    if config.get("dataset_path") not in _LOCAL_READERS or not kwargs.get("data_files"):
        return dict(config)
    found = _each(kwargs["data_files"], file.resolve())
    return {**config, "dataset_kwargs": {**kwargs, "data_files": found}}


def _each(given: Any, file: Path) -> Any:
    """The path or paths in what `data_files` says, which may be a list, or one for each split."""
    if isinstance(given, Mapping):
        return {name: _each(inner, file) for name, inner in given.items()}
    if isinstance(given, list | tuple):
        return [_each(inner, file) for inner in given]
    return _found(str(given), file)


def _found(given: str, file: Path) -> str:
    if "://" in given:
        return given
    for place in _places(given, file):
        if glob.glob(str(place), recursive=True):
            return str(place)
    looked = "from where the command runs, from the task's folder and those above it, and beside the task"
    problem = f"tasks: {file} reads {given!r}, which is nowhere: looked for {looked}"
    raise MissingDataError(f"{problem}. Give data_files as a whole path, or as one from the task's own folder.")


def _places(given: str, file: Path) -> Iterator[Path]:
    path = Path(given).expanduser()
    yield Path.cwd() / path
    yield from (folder / path for folder in file.parents)
    yield file.parent / path.name
