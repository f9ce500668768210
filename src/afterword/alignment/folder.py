"""The folder of an alignment: what a command that comes again may go on with, and what evaluation finds there.

The one rule: align.json appears once the selection is made, and a folder with it is an alignment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from afterword.errors import CheckpointError, ConfigError
from afterword.settings.align import AlignSettings
from afterword.storage.atomic import STAGING_SUFFIX, replace_file
from afterword.storage.json_lines import read_rows
from afterword.storage.records import read_record

SELECTION, CONFIG = "selection.jsonl", "config.yaml"
_BEGUN = {SELECTION, CONFIG}
"""What a command that was killed before its align.json can have left: the same may begin here again."""
_DAMAGED = "The folder is damaged."


@dataclass(frozen=True)
class AlignFolder:
    """Paths and small files of one alignment."""

    path: Path

    @property
    def state_file(self) -> Path:
        """Settings, counts, and what each stage did."""
        return self.path / "align.json"

    @property
    def work(self) -> Path:
        """Checkpoints of unfinished stages."""
        return self.path / ".work"

    def state(self, settings: AlignSettings) -> dict[str, Any]:
        """align.json, or nothing yet. ConfigError where the folder holds another alignment, or something else."""
        if not self.state_file.is_file():
            if problem := self._unusable():
                remedy = "Give a folder that is empty or not there yet."
                raise ConfigError(f"output_dir: {str(self.path)!r} {problem}. {remedy}")
            return {}
        state = read_record(self.state_file, _DAMAGED)
        if changed := _differences(state.get("settings", {}), settings):
            problem = f"output_dir: {str(self.path)!r} holds an alignment that these settings cannot continue."
            raise ConfigError([f"{problem} Give another output_dir, or the settings of that one:", *changed])
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Record how far it has come."""
        replace_file(self.state_file, json.dumps(state, indent=1, ensure_ascii=False))

    def begin(self, settings: AlignSettings, rows: list[dict[str, Any]]) -> None:
        """Write the selection, and the config.yaml by which `afterword evaluate` finds the model before."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / SELECTION, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        known = {**started_from(settings.model_name_or_path), "output_dir": settings.output_dir}
        replace_file(self.path / CONFIG, yaml.safe_dump(known, sort_keys=False, allow_unicode=True))

    def selected(self) -> set[tuple[str, str]]:
        """Kind and id of every selected sample."""
        rows = read_rows(self.path / SELECTION, _DAMAGED)
        return {(row["kind"], row["id"]) for _, row in rows if row["selected"]}

    def _unusable(self) -> str | None:
        if self.path.exists() and not self.path.is_dir():
            return "is a file"
        files = self.path.iterdir() if self.path.is_dir() else ()
        if any(file.name not in _BEGUN and file.suffix != STAGING_SUFFIX for file in files):
            return "is not empty and holds no alignment"
        return None


def started_from(name: str) -> dict[str, Any]:
    """What an aligned model is measured against: the base and the documents of a run, or the model itself.

    Alignment follows a run that taught documents, so what was learned and lost is counted from before that run.
    """
    path = Path(name) / CONFIG
    return {"model_name_or_path": name} | (read_record(path, _DAMAGED) if path.is_file() else {})


def refuse_other_content(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """CheckpointError where the folder's alignment was of another model, template or other samples."""
    for name, value in now.items():
        if before.get(name) != value:
            problem = f"{name}: the alignment in {str(folder)!r} has another than this (content differs)"
            raise CheckpointError(f"{problem}. Give the one of that alignment, or another output_dir.")


def _differences(saved: Mapping[str, Any], settings: AlignSettings) -> list[str]:
    """Settings that affect the weights and differ, one line each."""
    now, defaults = (each.model_dump(mode="json") for each in (settings, AlignSettings()))
    values = [(name, saved.get(name, defaults[name]), now[name]) for name in AlignSettings.weighing()]
    pairs = [(name, *(AlignSettings.without_effect(name, value) for value in both)) for name, *both in values]
    return [f"{name}: {before!r} in the folder, {value!r} now." for name, before, value in pairs if before != value]
