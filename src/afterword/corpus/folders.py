"""Folders of documents: which files are read, and what is left aside, counted and named.

What Afterword itself wrote there is never read as documents: else a run inside the documents would learn itself.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afterword.corpus.columns import CorpusOptions, NoTextError, find_columns
from afterword.corpus.others import other_formats
from afterword.corpus.rows import LoneObject, Origin, Record, Rows
from afterword.errors import number_of
from afterword.storage.files import BadRowError, ending_of, is_file, refuse, shown_name

_STUDY_TEXT, _STUDY_RECORD = "study.jsonl", "study.json"
_WRITTEN_HERE = (("config.yaml", "command.txt"), ("align.json",), ("rows.jsonl", "grid.json"), ("blend.json",))
_WRITTEN_HERE += ((_STUDY_TEXT, _STUDY_RECORD),)
"""Files by which a folder of ours is known: a run, an alignment, a comparison, a blend, a study."""
_MODEL = ("tokenizer_config.json", "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
"""One of these beside a config.json: a model."""
OFFICE = {".pdf": "pypdfium2", ".docx": "docx", ".pptx": "pptx", ".epub": "bs4", ".xlsx": "openpyxl"}
"""Endings of formats that the extra `documents` reads, each with the package that is needed."""
_NO_FILE = "pipe or device"
READ = "read"
LEFT_ASIDE = {
    "no_document": "no document",
    "unreadable": "not readable",
    "no_text": "without text (scanned?); OCR makes text of pictures",
}
"""Reasons for which a file of a folder is left aside, in words."""
_NAMED = 20
"""Names kept for what is left aside; all are counted."""
_SHOWN = 3
"""Of these, so many are said."""
_WHY_CHARACTERS = 100
_WORDS = re.compile(r"\w+")
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Characters of scripts that put no spaces between words, or few."""


@dataclass
class Aside:
    """What of a source is left aside, and what is read of files that may be none."""

    ignored_files: Counter[str] = field(default_factory=Counter[str])
    """Files that are not read, by ending."""
    ignored_folders: list[str] = field(default_factory=list[str])
    """Folders of runs and models."""
    named: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By reason, the first files that were left aside for it; and under `read`, .json files that were read."""
    doubtful: set[str] = field(default_factory=set[str])
    """Files that may be configuration, and are named as soon as a document of them is read."""
    counted: Counter[str] = field(default_factory=Counter[str])
    """How many files there are for each reason."""
    why: dict[str, str] = field(default_factory=dict[str, str])
    """Of files that are not readable and named, what is wrong with them."""

    def name(self, reason: str, shown: str, why: str = "") -> None:
        """Count a file, and keep its name if it is among the first."""
        self.counted[reason] += 1
        names = self.named.setdefault(reason, [])
        if len(names) < _NAMED:
            names.append(shown)
            self.why |= {shown: why} if why else {}


def walk(folder: str, options: CorpusOptions, aside: Aside) -> list[Path]:
    """Files at any depth, sorted, without hidden ones. Links to folders are followed, each folder once.

    Of a study that is given itself, its text: what else is there tells of it.
    """
    if all(os.path.isfile(os.path.join(folder, name)) for name in (_STUDY_TEXT, _STUDY_RECORD)):
        return [Path(folder, _STUDY_TEXT)]
    seen, paths = set(), []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders[:] = []
            continue
        if here != folder and _is_ours(here, options):
            aside.ignored_folders.append(shown_name(here))
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(here, name) for name in files if not name.startswith(".")]
    return sorted(paths)


def without_ours(paths: list[Path], base: str, options: CorpusOptions, aside: Aside) -> list[Path]:
    """Of what a pattern found, the files that are not in a folder of ours below its fixed part."""
    known: dict[Path, bool] = {Path(base): False}

    def ours(folder: Path) -> bool:
        """Whether a folder is one that Afterword wrote, or stands in one."""
        if folder not in known:
            above = folder != folder.parent and folder.is_relative_to(base or ".") and ours(folder.parent)
            known[folder] = above or _is_ours(str(folder), options)
            if known[folder] and not above:
                aside.ignored_folders.append(shown_name(folder))
        return known[folder]

    return [path for path in paths if not ours(path.parent)]


def _is_ours(folder: str, options: CorpusOptions) -> bool:
    def there(name: str) -> bool:
        return os.path.isfile(os.path.join(folder, name))

    output = options.output_dir
    if output and os.path.realpath(folder) == os.path.realpath(os.path.expanduser(output)):
        return True
    return any(all(map(there, names)) for names in _WRITTEN_HERE) or (there("config.json") and any(map(there, _MODEL)))


def chosen(paths: list[Path], endings: Collection[str], aside: Aside) -> list[Path]:
    """The files of known endings; the others are counted."""
    files = []
    for path in paths:
        # A link that leads nowhere is a file that cannot be read, and said to be one.
        if os.path.exists(path) and not is_file(path):
            aside.ignored_files[_NO_FILE] += 1
            aside.name(_NO_FILE, shown_name(path))
        elif ending_of(path) in endings:
            files.append(path)
        else:
            aside.ignored_files[ending_of(path) or "no ending"] += 1
    return files


def judged(rows: Rows, origin: Origin, options: CorpusOptions, aside: Aside, *, beside_texts: bool) -> Rows:
    """Rows of a file of a folder, which nobody named: an object that is no document is a row that says so.

    `beside_texts`: the folder has files of text, too; then a .json file that is broken is no document either.
    """
    is_json = ending_of(Path(origin.path)) == ".json"
    read_apart = {*OFFICE, *other_formats()}

    def milder(error: BadRowError) -> BadRowError:
        """The error that is skipped and counted, where the file is no document by its kind."""
        spared = is_json and beside_texts and error.reason == "broken"
        if ending_of(Path(origin.path)) in read_apart and error.reason == "broken":
            return BadRowError("unreadable", error.problem, error.remedy)
        return BadRowError("no_document", error.problem, error.remedy) if spared else error

    try:
        for place, row in rows:
            lone = isinstance(row, LoneObject) and options.kind == "documents"
            judgement = _not_prose(row, origin, options) if lone else None
            if lone or (is_json and beside_texts):
                aside.doubtful.add(origin.shown)
            yield place, milder(row) if isinstance(row, BadRowError) else judgement or row
    except BadRowError as error:
        yield "", milder(error)


def _not_prose(row: Mapping[str, Any], origin: Origin, options: CorpusOptions) -> BadRowError | None:
    """Why the one object of a file is rather the configuration of a tool. Whoever names the column knows better."""
    if options.text_column:
        return None
    try:
        text = row[find_columns(tuple(row), options, origin.shown)["text"]]
    except NoTextError as error:
        return BadRowError("no_document", f"one object without a text: {error}")
    if not isinstance(text, str) or len(_WORDS.findall(text)) >= 4 or len(_WITHOUT_SPACES.findall(text)) >= 8:
        return None
    return BadRowError("no_document", f"one object whose text is {text!r:.40}, less than four words")


def counted(records: Iterator[Record], origin: Origin, aside: Aside, *, lenient: bool) -> Iterator[Record]:
    """Records of a file of a folder; what is no document is named. `lenient`: so is a file without a text column."""
    try:
        for record in records:
            if isinstance(record[0], BadRowError):
                if record[0].reason in LEFT_ASIDE:
                    why = str(record[0]) if record[0].reason == "unreadable" else ""
                    aside.name(record[0].reason, origin.shown, why)
            elif origin.shown in aside.doubtful:
                aside.doubtful.remove(origin.shown)
                aside.name(READ, origin.shown)
            yield record
    except NoTextError as error:
        if not lenient:
            raise
        aside.name("no_document", origin.shown)
        yield BadRowError("no_document", str(error)), origin.shown, origin.name


def sentences(source: str, aside: Aside) -> list[str]:
    """What a person should know of the files of a folder that were not read, or that may be no documents."""
    said = [f"ignored {folder}: Afterword wrote it, or it is a model" for folder in aside.ignored_folders]
    if files := aside.ignored_files:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in files.most_common())
        said.append(f"ignored {_files(files.total())} in {source}: {kinds}{remedy_of(aside)}")
    for reason, words in LEFT_ASIDE.items():
        if reason in aside.named:
            said.append(f"skipped {_files(aside.counted[reason])} in {source}, {words}: {_listed(aside, reason)}")
    if READ in aside.named:
        said.append(f"read {_files(aside.counted[READ])} of .json in {source} as documents: {_listed(aside, READ)}")
    return said


def _files(count: int) -> str:
    return number_of(count, "file")


def _listed(aside: Aside, reason: str) -> str:
    count = aside.counted[reason]
    names = [f"{name}{_short(aside.why.get(name, ''))}" for name in aside.named[reason][:_SHOWN]]
    return ", ".join(names) + (f" and {count - len(names):,} more (data.json)" if count > len(names) else "")


def _short(why: str) -> str:
    """In brackets, what is wrong with a file of which it is said that it is not readable."""
    said = re.fullmatch(r"not readable(?:: (.*)| \((.*)\))", why, re.DOTALL)
    told = " ".join((said[1] or said[2] if said else why).split())
    told = told if len(told) <= _WHY_CHARACTERS else f"{told[:_WHY_CHARACTERS]}…"
    return f" ({told})" if told else ""


def remedy_of(aside: Aside) -> str:
    """What reads the ignored files, where something does."""
    readable = [ending for ending in OFFICE if ending in aside.ignored_files]
    return f" — pip install 'afterword[documents]' reads {' and '.join(readable)}" if readable else ""
