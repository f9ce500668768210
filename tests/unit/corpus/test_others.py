"""Formats of others: from the page in docs, by entry point, in a folder, and when they go wrong."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from afterword import plugins
from afterword.corpus import CorpusOptions, formats, others, read_corpus, register_format
from afterword.errors import ConfigError, DataError

PAGE = (Path(__file__).parents[3] / "docs" / "ADD_A_FORMAT.md").read_text(encoding="utf-8")
OWN = PAGE.split("```python\n")[1].split("```")[0]
MORE = """
from afterword.types import Document
def one(path): return path.read_text()
def document(path): return Document("", path.read_text(), title="T")
def several(path): yield from ["Mara sells bread.", {"text": "Jo sells fish.", "id": "jo"}, Document("", "Ann swims.")]
def wrong(path): return 3
def raises(path): raise KeyError("no such part")
def crashes(path): __import__("os")._exit(3)
def nothing(path): return []
def refuses(path): raise __import__("afterword").ConfigError(["one", "two"])
def bad_row(path): yield from [1, "Mara sells bread."]
NOTHING = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with the module of the page, and nothing registered before or after."""
    monkeypatch.setattr(others, "registered", {})
    monkeypatch.setattr(formats, "registered", others.registered)
    (tmp_path / "own_formats.py").write_text(OWN + MORE)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.note").write_text("Bread\nMara sells bread.\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(plugins.sys.modules, "own_formats", raising=False)
    monkeypatch.setattr(plugins.sys, "path", list(plugins.sys.path))
    return tmp_path


def read(source, **options):
    return read_corpus(source, cache_dir=Path("cache"), options=CorpusOptions(**options))


def test_the_example_of_the_page_is_short_and_reads_a_file_and_a_folder(folder):
    assert len(OWN.strip().splitlines()) <= 15
    register_format(".NOTE", "own_formats:read_note")
    (folder / "notes" / "b.txt").write_text("Jo sells fish.")
    for source, count in (("notes/a.note", 1), ("notes/*.note", 1), ("notes", 2)):
        first, *others_read = read(source)
        assert (first.title, first.text, first.id, len(others_read) + 1) == (
            "Bread",
            "Mara sells bread.\n",
            "a.note",
            count,
        )


def test_a_package_adds_an_ending(monkeypatch):
    points = {"note": EntryPoint("note", "own_formats:read_note", "afterword.documents")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "documents" else {})
    assert [document.title for document in read("notes")] == ["Bread"]


def test_a_function_beside_a_script_is_found(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    (folder / "own_formats.py").rename(folder / "elsewhere" / "own_formats.py")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    register_format("note", "own_formats:one")
    assert [document.text for document in read("notes")] == ["Bread\nMara sells bread.\n"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("one", ["Bread\nMara sells bread.\n"]),
        ("document", ["Bread\nMara sells bread.\n"]),
        ("several", ["Mara sells bread.", "Jo sells fish.", "Ann swims."]),
    ],
)
def test_what_a_function_may_give(name, texts):
    register_format("note", f"own_formats:{name}")
    assert [document.text for document in read("notes/a.note")] == texts


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong", "its reader gave a int, not a text, a Document"),
        ("raises", "not readable .KeyError: 'no such part'"),
        ("crashes", "its reader crashed"),
        ("bad_row", "row 0: the row must be a string, not 1"),
    ],
)
def test_a_function_that_goes_wrong_is_one_sentence(folder, name, words):
    register_format("note", f"own_formats:{name}")
    with pytest.raises(DataError, match=f"a.note.*{words}"):
        read("notes/a.note")
    (folder / "notes" / "b.txt").write_text("Jo sells fish.")
    assert "Jo sells fish." in [document.text for document in read("notes", skip_bad_rows=True)]


def test_in_a_folder_a_file_that_cannot_be_read_is_left_aside_and_said_why(folder):
    register_format("note", "own_formats:raises")
    (folder / "notes" / "b.txt").write_text("Jo sells fish.")
    found = read("notes")
    (source,) = found.sources
    assert (source.documents, source.skipped) == (1, {"unreadable": 1})
    why = "(KeyError: 'no such part')"
    assert found.to_json()["not_read"] == [f"skipped 1 file in notes, not readable: notes/a.note {why}"]
    for name in "cdef":
        (folder / "notes" / f"{name}.note").write_text("x")
    (said,) = read("notes").to_json()["not_read"]
    assert (said.count(why), said.endswith("and 2 more (data.json)")) == (3, True)


def test_a_file_of_which_nothing_comes_is_counted(folder):
    register_format("note", "own_formats:nothing")
    (folder / "notes" / "b.txt").write_text("Jo sells fish.")
    (folder / "notes" / "c.jsonl").write_text("")
    found = read("notes")
    assert found.sources[0].skipped == {"empty": 2}
    assert [skipped.location for skipped in found.skipped] == ["a.note", "c.jsonl"]
    with pytest.raises(DataError, match=r"notes/a\.note \(skipped: 1 empty\): no documents\. .*nothing is in it"):
        read("notes/a.note")


def test_a_whole_file_is_named_once_and_is_no_row():
    register_format("note", "own_formats:raises")
    with pytest.raises(DataError) as error:
        read("notes/a.note")
    remedy = "Repair it, or set skip_bad_rows: true to leave out such files, counted."
    assert str(error.value) == f"notes/a.note: not readable (KeyError: 'no such part'). {remedy}"


def test_problems_of_settings_found_while_reading_are_one_line():
    register_format("note", "own_formats:refuses")
    with pytest.raises(DataError) as error:
        read("notes/a.note")
    assert str(error.value) == "notes/a.note: one; two"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("own_formats:GONE", "cannot be loaded .*GONE"),
        ("no_such_module:read", "cannot be loaded .*No module named"),
        ("own_formats:NOTHING", "is no function. Give one that takes a path"),
        ("own_formats", "no place of a function. Give package.module:NAME, which another process can import"),
        ("__main__:read", "no place of a function. Give package.module:NAME, which another process can import"),
        (str.upper, "no place of a function. Give package.module:NAME, which another process can import"),
    ],
)
def test_a_place_without_a_function_is_refused(place, words):
    with pytest.raises(ConfigError, match=words):
        register_format("note", place)


@pytest.mark.parametrize("ending", ["", ".", "note.gz", "gz", "tar.note"])
def test_an_ending_that_no_file_can_have_is_refused(ending):
    with pytest.raises(ConfigError, match="is not what a name ends in"):
        register_format(ending, "own_formats:one")


def test_a_package_that_is_broken_is_named(monkeypatch):
    points = {"note": EntryPoint("note", "no_such_module:read", "afterword.documents")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "documents" else {})
    with pytest.raises(DataError, match=r"a\.note: .*'no_such_module:read' cannot be loaded"):
        read("notes/a.note")


def test_the_formats_of_afterword_stay(folder, monkeypatch):
    with pytest.raises(ConfigError, match=r"'\.txt' is read by Afterword\. Give your files another ending"):
        register_format("TXT", "own_formats:one")
    points = {"txt": EntryPoint("txt", "own_formats:wrong", "afterword.documents")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "documents" else {})
    (folder / "b.txt").write_text("Jo sells fish.")
    assert [document.text for document in read("b.txt")] == ["Jo sells fish."]


def test_compressed_files_are_refused_and_unknown_endings_name_the_known(folder):
    register_format("note", "own_formats:one")
    (folder / "a.note.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"a\.note\.gz: \.note files are not read compressed\. Unpack it, or set skip_bad_rows"
    ):
        read("a.note.gz")
    (folder / "a.other").write_text("x")
    with pytest.raises(
        DataError, match=r"a\.other: its ending \.other is not known\. Known for documents: \.txt .*\.note .*\(not"
    ):
        read("a.other")
