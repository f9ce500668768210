"""The folder of a demo, and how its commands read. The one rule: only what a demo made is removed."""

import json
import shlex
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from afterword.errors import ConfigError
from afterword.storage.atomic import replace_file

_RECORD = "demo.json"


def refuse_other(folder: Path) -> None:
    """ConfigError where a folder holds something and no demo. Changes nothing."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / _RECORD).is_file())):
        problem = f"output_dir: {str(folder)!r} is there already and holds no demo"
        raise ConfigError(f"{problem}. Give a folder that is empty or not there yet.")


def begin(folder: Path) -> None:
    """An empty folder with the mark of a demo, emptied where an earlier demo was."""
    refuse_other(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The folder itself stays: whoever makes a demo in it holds its lock.
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    record(folder, {"format": 1, "status": "running"})


def created_now() -> str:
    """The time as demo.json has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def record(folder: Path, about: Mapping[str, object]) -> None:
    """Write demo.json, whole or not at all."""
    replace_file(folder / _RECORD, json.dumps(about, indent=1, ensure_ascii=False))


def command_line(*words: str, **settings: Any) -> str:
    """What a person would type.

    >>> command_line("adapt", "my model", "-o", "runs/a", learning_rate=3e-4, use_peft=True)
    "afterword adapt 'my model' -o runs/a --learning-rate 0.0003 --use-peft"
    """
    flags: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag if value else f"--no{flag[1:]}"] if isinstance(value, bool) else [flag, str(value)]
    return shlex.join(["afterword", *words, *flags])
