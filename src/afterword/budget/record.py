"""budget.json of a run folder: what was chosen and from what, written as it becomes known."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterword.distributed import is_main_process
from afterword.storage.atomic import replace_file
from afterword.storage.records import read_record

RECORD = "budget.json"


def load_record(run: Path) -> dict[str, Any]:
    """What is known of a run so far; nothing where it has no budget, or is not begun."""
    file = run / RECORD
    return read_record(file) if file.is_file() else {}


def save_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write it down, on the main process."""
    if is_main_process():
        run.mkdir(parents=True, exist_ok=True)
        replace_file(run / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
