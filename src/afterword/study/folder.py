"""The folder of a study: its texts as documents, what became of every request, and some of them to be read.

The one rule: study.json appears last, and a folder with it is whole.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from afterword.errors import ConfigError, number_of
from afterword.method_options import StudyKind
from afterword.storage.atomic import STAGING_SUFFIX, replace_file
from afterword.storage.records import read_record
from afterword.study.plan import Piece, StudyText

TEXTS, RECORD, EXAMPLES = "study.jsonl", "study.json", "examples.md"
_SHOWN = 3
"""Texts of a kind that are shown."""
_SHOWN_CHARACTERS = 1500


def earlier(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a finished study of the same identity, or nothing yet.

    ConfigError where the folder holds another study, or something else.
    """
    if not (folder / RECORD).is_file():
        ours = {TEXTS, EXAMPLES}
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"output_dir: {str(folder)!r} is a file. Give a folder that is empty or not there yet.")
        files = folder.iterdir() if folder.is_dir() else ()
        if any(file.name not in ours and file.suffix != STAGING_SUFFIX for file in files):
            problem = f"output_dir: {str(folder)!r} is not empty and holds no study"
            raise ConfigError(f"{problem}. Give a folder that is empty or not there yet.")
        return {}
    record = read_record(folder / RECORD, "The folder is damaged.")
    then = record.get("identity", {})
    changed = [name for name in identity if then.get(name) != json.loads(json.dumps(identity[name]))]
    if changed:
        problem = f"output_dir: {str(folder)!r} holds a study with other {' and '.join(changed)}"
        raise ConfigError(f"{problem}. Give another folder; what is asked in both is not written again.")
    return record


def write(folder: Path, study: StudyText, record: Mapping[str, Any]) -> None:
    """All three files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row(piece), ensure_ascii=False) for piece in study.pieces)
    replace_file(folder / TEXTS, "".join(f"{line}\n" for line in lines))
    replace_file(folder / EXAMPLES, examples(study))
    replace_file(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False))


def row(piece: Piece) -> dict[str, str]:
    """A text as a line of study.jsonl: a document of any command, which names the one that it is about.

    The column is `document_id`, because `document` would be taken for that of the text.
    """
    document = piece.document
    labels = {"title": document.title, "date": document.date, "source": document.source}
    about = {"document_id": document.id, "kind": piece.kind, "prompt": piece.prompt}
    return {"id": piece.id, "text": piece.text} | {name: value for name, value in labels.items() if value} | about


def examples(study: StudyText) -> str:
    """Markdown: what there is of every kind, and three texts of each, from documents at even distances."""
    lines = [f"# Study text about {number_of(study.documents, 'document')} of {study.document_tokens:,} tokens", ""]
    lines += ["| kind | texts | tokens | for a document token | shortened | dropped |", "|---|---|---|---|---|---|"]
    for kind, count in study.counts.items():
        dropped = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in count.dropped.items())
        each = count.tokens / max(1, study.document_tokens)
        cells = [kind, f"{count.pieces:,}", f"{count.tokens:,}", f"{each:.2f}", f"{count.shortened:,}", dropped or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    for kind in study.counts:
        lines += ["", f"## {kind}", *_shown(kind, study)]
    return "\n".join(lines) + "\n"


def _shown(kind: StudyKind, study: StudyText) -> Iterator[str]:
    found = [piece for piece in study.pieces if piece.kind == kind]
    for place in sorted({len(found) * i // _SHOWN for i in range(_SHOWN)} if found else ()):
        piece = found[place]
        text = piece.text if len(piece.text) <= _SHOWN_CHARACTERS else f"{piece.text[:_SHOWN_CHARACTERS]} …"
        quoted = "\n".join(f"> {line}".rstrip() for line in text.splitlines())
        yield from ("", f"**{piece.id}** ({piece.prompt})", "", quoted)
