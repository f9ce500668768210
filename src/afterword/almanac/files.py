"""The world as files that `afterword adapt`, `evaluate` and `compare` read, and where the embedded models are."""

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afterword.almanac.after import ARRIVALS, CHOOSING, Part, build_part, held_out_documents, write_documents
from afterword.almanac.general import conversations, general_texts, preferences
from afterword.almanac.suite import build_suite
from afterword.almanac.world import Size, build_world
from afterword.errors import ConfigError
from afterword.evaluation.suites import Suite
from afterword.types import Document

PER_ENTITY = 12
"""Documents about every new or changed entity."""
_INSTRUCTIONS, _PREFERENCES = 4000, 1000
"""Rows of general data."""


def write_files(
    folder: Path, number: int = CHOOSING, *, per_entity: int = PER_ENTITY, arrivals: Size = ARRIVALS, changes: int = 4
) -> Mapping[str, int]:
    """A part's documents, held-out wordings, facts and suite; general text, instructions and preferences.

    Returns how many lines each file has. General data are the same for every part, and name nothing of the world.
    """
    world = build_world()
    part = build_part(world, number, arrivals, changes)
    suite = build_suite(world, part)
    rows: dict[str, list[Any]] = {
        "documents": [_row(document) for document in write_documents(world, part, per_entity)],
        "held_out": [_row(document) for document in held_out_documents(part)],
        "facts": [asdict(fact) for fact in part.facts] + [asdict(change) for change in part.changes],
        "general": [{"text": text} for text in general_texts(world)],
        "instructions": list(itertools.islice(conversations(world, "general"), _INSTRUCTIONS)),
        "preferences": list(itertools.islice(preferences(world, "general"), _PREFERENCES)),
    }
    files = {f"{name}.jsonl": _lines(lines) for name, lines in rows.items()} | {"suite.jsonl": suite_lines(suite)}
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder: {str(folder)!r} is a file. Give a folder that is there, or not there yet.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: text.count("\n") for name, text in files.items()}


def suite_lines(suite: Suite) -> str:
    """A suite as the file that `load_suite` reads."""
    return _lines([_header(suite), *(asdict(item) for item in suite.items)])


def embedded_suite(part: Part | None = None) -> Suite:
    """The suite of the choosing part: what `--suite almanac` asks."""
    world = build_world()
    return build_suite(world, part or build_part(world, CHOOSING))


def _header(suite: Suite) -> dict[str, Any]:
    about = {"name": suite.name, "version": suite.version, "refusals": list(suite.refusals)}
    return {"suite": {**about, "texts": list(suite.texts)}}


def _row(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in ("id", "title", "date", "text") if getattr(document, name)}


def _lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
