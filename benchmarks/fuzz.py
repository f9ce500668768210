"""Everything that people give to be read, made wrong at random: only our own errors may come out.

    python benchmarks/fuzz.py --minutes 60 --output fuzz.json

One target for each reader: documents of every format, sentences, questions, suites, mixtures, settings, run folders.
A target makes its input of the format's own pieces, or changes some bytes of a file that is right. tests/fuzz runs
the same targets for some seconds. Ends with exit code 1 if anything but an AfterwordError came out, with the input.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import resource
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from afterword.corpus import CorpusOptions, read_corpus, split_sentences
from afterword.errors import AfterwordError
from afterword.evaluation.question_file import load_questions
from afterword.evaluation.suites import load_suite
from afterword.methods import METHODS
from afterword.report import write_pages
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.yaml_files import load_yaml

PIECES = {
    "txt": [b"Mara moved. ", b"C\xc2\xa0. ", b"\n\n", b"\xff", b"\0", "彼は外に出た。".encode(), b"---\n", b"+++\n"],
    "md": [
        b"---\n",
        b"title: a\n",
        b"+++\n",
        b"title = 1\n",
        b"date: 2026-13-45\n",
        b"# Head\n",
        b"&a [*a]\n",
        b"\xff",
    ],
    "html": [
        b"<p>",
        b"</p>",
        b"<td>",
        b"<!--",
        b"<![CDATA[",
        b"<a b='",
        b"&#x",
        b"<pre>",
        b"text ",
        b"</",
        b"<?",
        b"\xff",
    ],
    "jsonl": [b'{"text": "Mara moved."}\n', b'{"text": ', b"[" * 2000, b"1" * 5000, b'"\\ud800"', b"\n", b"null", b"}"],
    "json": [b'{"text": "#333"}', b"[", b"]", b'{"a": [{"text": "b"}]}', b'"text"', b",", b":", b"NaN", b"1e999", b"{"],
    "csv": [b"text,id\n", b'"', b"Mara, moved.\n", b",", b"\r", b"\0", b"\xff", b"text,text\n"],
    "jsonl.gz": [b'{"text": "Mara moved."}\n', b"{", b"\xff"],
}
OBJECTS = [
    "question",
    "answer",
    "answers",
    "document",
    "choices",
    "id",
    "part",
    "skill",
    "split",
    "prompt",
    "checks",
    "suite",
]
NAMES = [
    "learning_rate",
    "mixture",
    "trainer",
    "documents",
    "lora_target_modules",
    "align",
    "ema",
    "max_length",
    "method",
]
QUESTION = {"question": "Where?", "answer": "Oslo"}
ITEM = {"part": "learning", "skill": "a", "split": "dev", "prompt": "Where?", "answer": "Oslo"}
ITEM |= {"checks": [{"kind": "equals", "value": "Oslo"}]}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["learning", "dev"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*OBJECTS, "kind", "value"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def _corpus(folder: Path, path: Path, skip: bool) -> None:
    options = CorpusOptions(skip_bad_rows=skip, max_document_mib=1)
    for document in read_corpus(path, cache_dir=folder / "cache", options=options):
        assert document.text.strip()


def text_formats(folder: Path, draw: Any) -> None:
    """Documents of formats that are text, made of pieces."""
    ending = draw(st.sampled_from(sorted(PIECES)))
    content = b"".join(draw(st.lists(st.sampled_from(PIECES[ending]) | st.binary(max_size=8), max_size=14)))
    if ending.endswith(".gz"):
        content = gzip.compress(content, mtime=0)[: draw(st.integers(0, 80))]
    place = folder / "docs"
    place.mkdir(exist_ok=True)
    (place / "beside.txt").write_text("Another text stands beside it.")
    (place / f"a.{ending}").write_bytes(content)
    _corpus(folder, place if draw(st.booleans()) else place / f"a.{ending}", draw(st.booleans()))


def packed_formats(folder: Path, draw: Any) -> None:
    """Documents of formats that are not text: a right file with some bytes changed, or cut."""
    made = _packed()
    ending = draw(st.sampled_from(sorted(made)))
    content = bytearray(made[ending])
    for _ in range(draw(st.integers(0, 6))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    path = folder / f"a.{ending}"
    path.write_bytes(content)
    _corpus(folder, path, draw(st.booleans()))


def sentences(folder: Path, draw: Any) -> None:
    """Any text, in any language: spans that tile it."""
    some = st.text(st.sampled_from("aAbC1éЯ日。.!?… \n\u00a0\u3000\u2009\u200b“”'\u0301😀\ud800")) | st.text()
    text = draw(some)
    spans = split_sentences(text, draw(st.sampled_from(["en", "de", "ja", "fr", "hi", "ar", "fi", "und"])))
    assert "".join(text[start:end] for start, end in spans) == (text if text.strip() else "")


def _lines(path: Path, draw: Any, right: dict[str, Any]) -> Path:
    """Rows that are right but for some of their parts, and now and then something else."""
    parts = st.dictionaries(st.sampled_from(OBJECTS), JSON_VALUES, max_size=2)
    number = iter(range(100))
    rows = draw(st.lists(parts.map(lambda some: right | {"id": f"i{next(number)}"} | some) | JSON_VALUES, max_size=3))
    lines = [json.dumps(row).encode() for row in rows] + draw(st.lists(st.binary(max_size=20), max_size=1))
    path.write_bytes(b"\n".join(lines))
    return path


def questions(folder: Path, draw: Any) -> None:
    """Files of questions."""
    load_questions(_lines(folder / "questions.jsonl", draw, QUESTION))


def suites(folder: Path, draw: Any) -> None:
    """Files of items with checks."""
    load_suite(_lines(folder / "suite.jsonl", draw, ITEM))


def mixtures(folder: Path, draw: Any) -> None:
    """Sources of general text, as the command line and YAML have them."""
    part = st.sampled_from(
        ["files=a.txt", "kind=instructions", "tokens=0.2", "samples=x", "once=true", "=", "joiner=", "a=b"]
    )
    text = st.builds(lambda name, parts: f"{name}={','.join(parts)}", st.text(max_size=5), st.lists(part, max_size=4))
    value = draw(st.lists(text, max_size=3) | st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3))
    good = {"a": {"files": ["a.txt"], "kind": "instructions", "tokens": 0.2}}
    value = (
        {**good, **value}
        if isinstance(value, dict)
        else [*draw(st.sampled_from([[], ["b=files=a.txt,once=true"]])), *value]
    )
    read_settings(
        {"model_name_or_path": "m", "method": draw(st.sampled_from(sorted(METHODS))), "mixture": value}, AdaptSettings
    )


def configurations(folder: Path, draw: Any) -> None:
    """Files of settings."""
    piece = st.sampled_from(
        [*(f"{name}: " for name in NAMES), "\n", "- ", "[", "]", "{", "&a ", "*a", "!!bool x", "1e-6", "~", "'"]
    )
    (folder / "run.yaml").write_text(
        "".join(draw(st.lists(piece | st.text(max_size=4), max_size=12))), encoding="utf-8", errors="replace"
    )
    read_settings({"model_name_or_path": "m"} | load_yaml(folder / "run.yaml"), AdaptSettings)


def run_folders(folder: Path, draw: Any) -> None:
    """Folders of runs, with one file that is something else."""
    files: dict[str, Any] = {
        "config.yaml": "model_name_or_path: m\nmethod: disc\n",
        "command.txt": "afterword adapt m docs\n",
        "environment.json": "{}",
        "metrics.jsonl": '{"step": 1, "train/loss_nats": 1.0}\n',
        "data.json": '{"documents": 1, "sources": [{"source": "docs", "documents": 1}]}',
        "state.json": '{"status": "complete", "steps": 1, "seconds": 1.0}',
        "scores.json": '{"format": 1, "scores": []}',
    }
    name = draw(st.sampled_from(sorted(files)))
    files[name] = draw(JSON_VALUES.map(json.dumps) | st.text(max_size=30) | st.just("[" * 5000))
    run = folder / "run"
    run.mkdir(exist_ok=True)
    for each, content in files.items():
        (run / each).write_text(content, encoding="utf-8", errors="replace")
    write_pages(run)


TARGETS: dict[str, Callable[[Path, Any], None]] = {
    target.__name__: target
    for target in (text_formats, packed_formats, sentences, questions, suites, mixtures, configurations, run_folders)
}

_made: dict[str, bytes] = {}


def _packed() -> dict[str, bytes]:
    """A small right file of every format that is not text, as far as the extra `documents` is there."""
    if _made:
        return _made
    import pyarrow as pa
    from pyarrow import parquet

    files: dict[str, io.BytesIO] = {"parquet": io.BytesIO(), "epub": io.BytesIO()}
    parquet.write_table(
        pa.table({"text": ["Mara moved. She sells bread."] * 3, "id": ["a", "b", "c"]}), files["parquet"]
    )
    with zipfile.ZipFile(files["epub"], "w") as book:
        book.writestr("META-INF/container.xml", '<container><rootfile full-path="a.opf"/></container>')
        book.writestr("a.opf", '<package><item id="c" href="c.xhtml"/><itemref idref="c"/></package>')
        book.writestr("c.xhtml", "<h1>One</h1><p>First. Second.</p>")
    with contextlib.suppress(ImportError):
        import docx

        document = docx.Document()
        document.add_heading("Head", 1)
        document.add_paragraph("Mara moved. She sells bread.")
        document.save(files.setdefault("docx", io.BytesIO()))
    with contextlib.suppress(ImportError):
        import openpyxl

        book = openpyxl.Workbook()
        book.active.append(["Crane", "Load"])
        book.save(files.setdefault("xlsx", io.BytesIO()))
    _made.update({ending: file.getvalue() for ending, file in files.items()})
    pages = b"2 0 obj\n<< /Kids [] /Count 0 >>\nendobj\n"
    _made["pdf"] = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n" + pages + b"%%EOF\n"
    return _made


def run(target: Callable[[Path, Any], None], examples: int, number: int) -> dict[str, int]:
    """Run a target on so many inputs; how many were read and how many refused. Anything else is raised."""
    came = {"read": 0, "refused": 0, "silent": 0}

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def once(data: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            try:
                target(Path(folder), data.draw)
                came["read"] += 1
            except AfterwordError as error:
                came["refused" if str(error).strip() else "silent"] += 1

    once()
    assert not came["silent"], "a refusal says why"
    return came


def main(
    minutes: Annotated[float, typer.Option(help="How long, all targets together.")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="Where counts and memory are written.")] = None,
    examples: Annotated[int, typer.Option(help="Inputs of a target at a time.")] = 200,
) -> None:
    """Run all targets in turn until the time is over."""
    ends, first = time.monotonic() + 60 * minutes, random.SystemRandom().randrange(2**32)
    counts = {name: {"read": 0, "refused": 0, "silent": 0, "other": 0} for name in TARGETS}
    failures, rounds = list[str](), 0
    while time.monotonic() < ends:
        for name, target in TARGETS.items():
            try:
                for kind, count in run(target, examples, first + rounds).items():
                    counts[name][kind] += count
            except Exception as error:
                counts[name]["other"] += 1
                failures.append(f"{name}, seed {first + rounds}: {type(error).__name__}: {error!s:.500}")
        rounds += 1
    peaks = [resource.getrusage(who).ru_maxrss / 2**10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {
        "minutes": minutes,
        "first_seed": first,
        "rounds": rounds,
        "peak_mib": peaks[0],
        "peak_apart_mib": peaks[1],
    }
    found |= {"counts": counts, "failures": failures}
    print(json.dumps(found, indent=1))
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    typer.run(main)
