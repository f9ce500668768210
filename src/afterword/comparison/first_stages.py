"""Cells that differ in nothing but their alignment are one run before it: trained once, copied for the others.

The folder `stage1/` of a comparison holds such runs while its cells are run. A copy is what training again would give,
as equal settings give equal weights; it keeps the metrics, the costs and the environment of the run that it is of.
"""

import contextlib
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from afterword.comparison.grid import Cell
from afterword.settings.align import following
from afterword.settings.yaml_files import to_yaml
from afterword.storage.atomic import replace_file

_OF_ONE_CELL = ("aligned", "checkpoint-*", "scores.json", ".work")


def shared_stages(cells: Sequence[Cell], stages: Mapping[Path, str], output: Path) -> dict[Path, Path]:
    """For the folder of every cell whose stage before an alignment others have too, where that is kept.

    `stages` holds the fingerprint of the run without its alignment, by the cell's folder.
    """
    aligned = [cell.folder for cell in cells if following(cell.settings)]
    often = Counter(stages[folder] for folder in aligned)
    return {folder: output / "stage1" / stages[folder][:16] for folder in aligned if often[stages[folder]] > 1}


def take_stage(kept: Path | None, cell: Cell) -> bool:
    """Begin the cell with the run that is kept, if there is one and the cell was not begun; whether it did."""
    if kept is None or not kept.is_dir() or cell.folder.exists():
        return False
    partial = cell.folder.with_name(f"{cell.folder.name}.copy")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(kept, partial)
    replace_file(partial / "config.yaml", to_yaml(cell.settings))
    partial.rename(cell.folder)
    return True


def keep_stage(run: Path, kept: Path | None) -> None:
    """Keep a finished run, without its alignment, for the cells that share it."""
    if kept is None or kept.exists():
        return
    partial = kept.with_name(f"{kept.name}.{uuid.uuid4().hex[:8]}")
    shutil.copytree(run, partial, ignore=shutil.ignore_patterns(*_OF_ONE_CELL))
    # Another process may have kept the same run meanwhile.
    with contextlib.suppress(OSError):
        partial.rename(kept)


def drop_stages(output: Path) -> None:
    """Every cell has ended."""
    shutil.rmtree(output / "stage1", ignore_errors=True)
