"""Folders as people have them: what is no document is left aside, counted and named; our own folders are never read."""

import json
import os

import pytest

from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import DataError, printable


def read(source, tmp_path, **options):
    return read_corpus(source, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "install.md").write_text("Install it first. Then run it.")
    return folder


@pytest.mark.parametrize(
    "content",
    ['{"label": "Guide"}', '{"text": "#333333"}', '{"a": 1, // no JSON\n}', '[{"label": "a"}]', '{"content": "./src"}'],
)
def test_configuration_beside_texts_is_left_aside_and_named(docs, tmp_path, content):
    (docs / "theme.json").write_text(content)
    corpus = read(docs, tmp_path)
    assert [d.id for d in corpus] == ["install.md"]
    assert corpus.sources[0].skipped == {"no_document": 1}
    (said,) = corpus.to_json()["not_read"]
    assert "theme.json" in said


def test_one_object_that_is_prose_is_read_and_named(docs, tmp_path):
    (docs / "about.json").write_text('{"text": "The harbour of Vik is new."}')
    corpus = read(docs, tmp_path)
    assert [d.id for d in corpus] == ["about.json:0", "install.md"]
    assert "about.json" in corpus.to_json()["not_read"][0]


def test_data_without_a_text_column_stops_unless_asked(docs, tmp_path):
    (docs / "rows.jsonl").write_text('{"story": "A story of Vik."}\n')
    with pytest.raises(DataError, match=r"rows.jsonl.*text_column"):
        read(docs, tmp_path)
    corpus = read(docs, tmp_path, skip_bad_rows=True)
    assert corpus.sources[0].skipped == {"no_document": 1}
    assert "rows.jsonl" in corpus.to_json()["not_read"][0]


def test_pipes_are_left_aside_and_a_named_one_is_refused(docs, tmp_path):
    os.mkfifo(docs / "x.txt")
    corpus = read(docs, tmp_path)
    assert corpus.sources[0].ignored_files == {"pipe or device": 1}
    with pytest.raises(DataError, match=r"x.txt.*pipe"):
        read(docs / "x.txt", tmp_path)


def test_runs_and_models_inside_the_documents_are_never_read(docs, tmp_path):
    for name in ("run/config.yaml", "run/command.txt", "run/README.md", "model/config.json", "model/model.safetensors"):
        (docs / name).parent.mkdir(exist_ok=True)
        (docs / name).write_text(f'{{"name": "{name}"}}')
    (docs / "later" / "checkpoint-2").mkdir(parents=True)
    (docs / "later" / "checkpoint-2" / "note.md").write_text("Half a run.")
    for source in (docs, f"{docs}/**/*.*"):
        corpus = read(source, tmp_path, output_dir=str(docs / "later"))
        assert [d.id for d in corpus] == ["install.md"]
        assert len(corpus.sources[0].aside.ignored_folders) == 3
    # A run that was given itself is what was asked for.
    assert [d.id for d in read(docs / "run", tmp_path)] == ["README.md", "command.txt"]


def test_names_that_are_not_utf8_or_control_a_terminal_are_shown_as_escapes(tmp_path):
    folder = os.fsencode(tmp_path) + b"/d\xe9"
    os.mkdir(folder)
    for name in (b"/\xff.txt", b"/\x1b[2J.txt"):
        with open(folder + name, "wb") as file:
            file.write(b"Text of " + name[1:2].hex().encode())
    corpus = read(os.fsdecode(folder), tmp_path)
    assert [d.id for d in corpus] == ["\\x1b[2J.txt", "\\xff.txt"]
    json.dumps(corpus.to_json()).encode()
    assert corpus[0].source.endswith("d\\xe9")


def test_errors_never_print_what_a_terminal_obeys(tmp_path):
    (tmp_path / "\x1b[2J\u202eb.jsonl").write_text("{broken")
    with pytest.raises(DataError) as error:
        read(tmp_path, tmp_path)
    assert "\\x1b[2J\\u202eb.jsonl" in str(error.value)
    assert printable("a\tb\nc ü 日") == "a\tb\nc ü 日"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\ntitle: Vik\ndate: 2025-02-03\n---\n\nThe text.", ("Vik", "2025-02-03", "The text.")),
        ('+++\ntitle = "Vik"\n+++\nThe text.', ("Vik", None, "The text.")),
        ("---\nOnly a rule.\n---\nThe text.", (None, None, "---\nOnly a rule.\n---\nThe text.")),
        ("---\na: [\n---\nThe text.", (None, None, "---\na: [\n---\nThe text.")),
        ("# Head\n\nThe text.", (None, None, "# Head\n\nThe text.")),
    ],
)
def test_front_matter_of_markdown_says_title_and_date(tmp_path, text, expected):
    (tmp_path / "a.md").write_text(text)
    (document,) = read(tmp_path / "a.md", tmp_path)
    assert (document.title, document.date, document.text) == expected


def test_a_page_says_when_it_was_written(tmp_path):
    head = '<meta name="date" content="2024-01-01"><meta property="article:published_time" content="2025-02-03">'
    (tmp_path / "a.html").write_text(f"<head><title>T</title>{head}</head><p>Text.")
    (document,) = read(tmp_path / "a.html", tmp_path)
    assert (document.title, document.date) == ("T", "2025-02-03")
