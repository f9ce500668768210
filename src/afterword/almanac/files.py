"""The world as files that `afterword adapt`, `evaluate` and `compare` read, and where the embedded models are."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path

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
    files = {
        "documents.jsonl": document_lines(write_documents(world, part, per_entity)),
        "held_out.jsonl": document_lines(held_out_documents(part)),
        "facts.jsonl": _lines(map(asdict, (*part.facts, *part.changes))),
        "general.jsonl": _lines({"text": text} for text in general_texts(world)),
        "instructions.jsonl": _lines(islice(conversations(world, "general"), _INSTRUCTIONS)),
        "preferences.jsonl": _lines(islice(preferences(world, "general"), _PREFERENCES)),
        "suite.jsonl": suite_lines(build_suite(world, part)),
    }
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder: {str(folder)!r} is a file. Give a folder that is there, or not there yet.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: text.count("\n") for name, text in files.items()}


def suite_lines(suite: Suite) -> str:
    """A suite as the file that `load_suite` reads."""
    about = {"name": suite.name, "version": suite.version, "refusals": suite.refusals, "texts": suite.texts}
    return _lines([{"suite": about}, *map(asdict, suite.items)])


def document_lines(documents: Iterable[Document]) -> str:
    """Documents as a file that every command reads."""
    fields = ("id", "title", "date", "text")
    return _lines({name: getattr(each, name) for name in fields if getattr(each, name)} for each in documents)


def embedded_suite(part: Part | None = None) -> Suite:
    """The suite of the choosing part: what `--suite almanac` asks."""
    world = build_world()
    return build_suite(world, part or build_part(world, CHOOSING))


def _lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
