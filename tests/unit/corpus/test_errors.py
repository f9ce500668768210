"""What is wrong is said in one message: the file and the place, the value, the rule, the remedy."""

import csv
import gzip
import json
import os
import random

import pytest

from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import ConfigError, DataError, TrainingError

GOOD = b'{"text": "fine"}\n'
GZIPPED = gzip.compress(GOOD * 1000, mtime=0)


def read(source, tmp_path, **options):
    return read_corpus(source, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))


def written(tmp_path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


def assert_said(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} not in: {message}"
    assert "Traceback" not in message
    assert len(message) < 700


FILES = {
    # name of the file: content, options, what the message has to say
    "broken.jsonl": (GOOD * 2 + b'{"text": ', {}, ["line 3", "not valid JSON", "column 10", "skip_bad_rows"]),
    "nested.jsonl": (GOOD + b"[" * 100_000, {}, ["line 2", "not valid JSON", "skip_bad_rows"]),
    "digits.jsonl": (GOOD + b"1" * 5000, {}, ["line 2", "not valid JSON", "skip_bad_rows"]),
    "list.jsonl": (GOOD + b"[1, 2]\n", {}, ["line 2", "must be a string, not [1, 2]"]),
    "number.jsonl": (GOOD + b'{"text": 5}\n', {}, ["line 2", "column 'text'", "not 5", "skip_bad_rows"]),
    "null.jsonl": (GOOD + b'{"text": null}\n', {}, ["line 2", "column 'text'", "not None"]),
    "lacks.jsonl": (GOOD + b'{"a": "b"}\n', {}, ["line 2", "column 'text' of a", "not None"]),
    "surrogate.jsonl": (GOOD + b'{"text": "\\ud800"}\n', {}, ["line 2", "not valid Unicode"]),
    "latin.jsonl": (
        GOOD + b'{"text": "caf\xe9"}\n',
        {},
        ["line 2", "character 3", "udce9", "not valid Unicode", "not UTF-8", "iconv", "skip_bad_rows"],
    ),
    "latin.txt": (
        b"one\ntwo caf\xe9\n",
        {},
        ["character 11", "line 2", "udce9", "not valid Unicode", "not UTF-8", "iconv"],
    ),
    "latin.csv": (b"id,text\n1,ok\n2,caf\xe9\n", {}, ["line 3", "not valid Unicode", "skip_bad_rows"]),
    "latin.html": (b"<p>caf\xe9", {}, ["character 6", "not valid Unicode"]),
    "latin.json": (b'[{"text": "caf\xe9"}]', {}, ["row 0", "character 3", "not valid Unicode"]),
    "wide.txt": ("text".encode("utf-16"), {}, ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
    "wide.jsonl": (GOOD.decode().encode("utf-16"), {}, ["line 1", "UTF-16"]),
    "wide.csv": ("text\na".encode("utf-16"), {}, ["line 1", "UTF-16"]),
    "binary.txt": (b"ELF\0\1\2", {}, ["line 1", "NUL", "looks like a binary file"]),
    "binary.csv": (b"text\na\0b\n", {}, ["line 2", "NUL", "looks like a binary file"]),
    "broken.json": (b'[\n{"text": "a"},\n{"text": b}\n]', {}, ["line 3 column 10", "not valid JSON", "Repair"]),
    "scalar.json": (b"5", {}, ["row must be a string, not 5"]),
    "keyed.json": (b'{"12": {"text": "a"}, "13": {}}', {}, ["no column looks like the text", "12, 13"]),
    "lists.json": (b'{"x": [{"text": "a"}], "y": [{"text": "b"}]}', {}, ["no column looks like the text", "x, y"]),
    "empty.json": (b"[]", {}, ["no documents", "1 empty", "nothing is in it"]),
    "empty.txt": (b" \n\n", {}, ["no documents", "1 empty", "whitespace", "Give a source"]),
    "unclosed.csv": (b'id,text\n1,ok\n2,"open\n', {}, ["line 3", "not valid CSV", "Repair"]),
    "fields.csv": (b"id,text\n1,ok\n2,a,b\n", {}, ["line 3", "3 fields where the header has 2"]),
    "twice.csv": (b"text,text\na,b\n", {}, ["line 1", "'text' is there twice", "Rename"]),
    "broken.parquet": (b"PAR1nonsensePAR1", {}, ["not a readable parquet file"]),
    "text.parquet": (b"some text", {}, ["not a readable parquet file"]),
    "plain.txt.gz": (b"not compressed", {}, ["cannot be read", ".gz file is whole"]),
    "cut.jsonl.gz": (GZIPPED[:-20], {}, ["cannot be read", ".gz file is whole"]),
    "flipped.jsonl.gz": (GZIPPED[:30] + b"\xff\xff\xff" + GZIPPED[33:], {}, ["cannot be read", ".gz file is whole"]),
    "notes.odt": (b"x", {}, ["its ending .odt is not known. Known for documents: .txt", "ADD_A_FORMAT.md"]),
    "README": (b"x", {}, ["no ending that says what it is", ".txt"]),
    "columns.jsonl": (b'{"a": 1, "b": 2}\n', {}, ["no column looks like the text", "text_column", "a, b"]),
    "two.jsonl": (
        b'{"text": "a", "Content": "b", "n": 1}\n',
        {},
        ["text, Content could all be the text", "text_column", "text, Content, n"],
    ),
    "typo.jsonl": (
        b'{"story": "a", "n": 1}\n',
        {"text_column": "stroy"},
        ["text_column = 'stroy'", "no such column", "Did you mean story?", "story, n"],
    ),
    "typo.csv": (b"text,name\na,b\n", {"id_column": "nmae"}, ["id_column = 'nmae'", "Did you mean name?"]),
    "large.txt": (b"x" * 2000, {"max_document_mib": 0.001}, ["max_document_mib = 0.001", "never cut", "split"]),
    "large.jsonl": (
        GOOD + b'{"text": "' + b"x" * 2000 + b'"}\n',
        {"max_document_mib": 0.001},
        ["line 2", "max_document_mib = 0.001", "raise the setting"],
    ),
    "large.csv": (
        b'id,text\n1,"' + b"line\n" * 500 + b'"\n',
        {"max_document_mib": 0.001},
        ["line 2", "max_document_mib = 0.001"],
    ),
    "large.json": (
        json.dumps([{"text": "a"}, {"text": "x" * 2000}]).encode(),
        {"max_document_mib": 0.001},
        ["row 1", "max_document_mib = 0.001"],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_named_with_place_rule_and_remedy(tmp_path, name):
    content, options, words = FILES[name]
    path = written(tmp_path, name, content)
    with pytest.raises(DataError) as error:
        read(path, tmp_path, **options)
    assert_said(error, path, *words)
    assert not os.path.exists(tmp_path / "cache") or os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("./missing.txt", ["./missing.txt", "no such file or folder", "Check the path"]),
        ("missing.jsonl", ["missing.jsonl", "no such file or folder"]),
        ("~/no/such folder", ["no such file or folder"]),
        ("a/b/c", ["a/b/c", "no such file or folder"]),
        ("./no-*.txt", ["./no-*.txt", "no file of a known ending", "quoted in the shell"]),
        ("some/dataset:train", ["some/dataset:train", "no such file or folder, and no data set", "name:split"]),
        (["Yes", "No"], ["Yes", "no such file or folder", "owner/name or name:split"]),
        ([], ["no sources", "at least one"]),
        (5, ["type int", "Give a path"]),
        (b"bytes", ["type bytes", "Give a path"]),
        ({"text": "one row"}, ["type dict", "list"]),
        ([[]], ["memory", "no documents", "no row at all"]),
        ([[5]], ["memory, row 0", "the row must be a string, not 5"]),
    ],
)
def test_what_is_no_source_is_named_with_what_was_tried(tmp_path, monkeypatch, source, words):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        read(source, tmp_path)
    assert_said(error, *words)


def test_nothing_written_like_a_path_is_asked_of_a_hub(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    monkeypatch.chdir(tmp_path)
    for source in ["./docs", "/docs", "~/docs", "a.txt", "b.csv.gz", "x*", "a/b/c", "my folder", "c\\d"]:
        with pytest.raises(DataError):
            read(source, tmp_path)


def test_folders_and_patterns_without_documents_say_what_is_in_them(tmp_path):
    (tmp_path / "docs" / "inner").mkdir(parents=True)
    written(tmp_path, "docs/a.png", b"x")
    with pytest.raises(DataError) as error:
        read(tmp_path / "docs", tmp_path)
    assert_said(error, str(tmp_path / "docs"), "no file of a known ending", "1 of .png", ".txt .md")
    with pytest.raises(DataError) as error:
        read(f"{tmp_path}/doc*", tmp_path)
    assert_said(error, "doc*", "no file of a known ending")


def test_a_split_has_to_be_one_that_is_there(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "both")
    both = f"{tmp_path}/both"
    for source, words in [(both, ["train, test", f"{both}:train"]), (f"{both}:dev", ["both/dev", "name:split"])]:
        with pytest.raises(DataError) as error:
            read(source, tmp_path)
        assert_said(error, source, *words)


def test_what_the_system_refuses_is_passed_on_in_words(tmp_path, monkeypatch):
    path = written(tmp_path, "a.txt", b"x")
    original = open

    def refuse(name, *args, **kwargs):
        if str(name) == path:
            raise PermissionError(13, "Permission denied", name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError) as error:
        read(path, tmp_path)
    assert_said(error, path, "cannot be read: Permission denied", "permissions")


def test_a_folder_that_may_not_be_entered_is_an_error_and_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "docs" / "closed").mkdir(parents=True)
    written(tmp_path, "docs/a.txt", b"x")
    original = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):  # Modes do not stop root, who may be running this.
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError) as error:
        read(tmp_path / "docs", tmp_path)
    assert_said(error, "closed", "cannot be read: Permission denied")


def test_what_goes_wrong_while_rows_are_made_is_said_as_it_is(tmp_path):
    def rows():
        yield {"text": "One."}
        raise TrainingError("generator: it does not answer.")

    with pytest.raises(TrainingError, match=r"^generator: it does not answer\.$"):
        read(rows(), tmp_path)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = written(tmp_path, "file", b"")
    with pytest.raises(DataError) as error:
        read_corpus([{"text": "a"}], cache_dir=f"{blocked}/cache")
    assert_said(error, "cache_dir", blocked, "cannot be written", "choose another")


def test_all_wrong_options_are_said_at_once():
    with pytest.raises(ConfigError) as error:
        read_corpus("x", cache_dir="y", options=CorpusOptions(max_document_mib=0, max_documents=0))
    assert_said(error, "max_document_mib: must be above 0", "max_documents: must be at least 1")


@pytest.mark.parametrize(
    ("name", "content", "texts", "skipped"),
    [
        ("a.jsonl", GOOD + b'{"text": \n{"text": 1}\n"\xff"\n{"text": "end"}', ["fine", "end"], (2, 1)),
        ("a.csv", b"id,text\n1,a\n2,b,c\n3,\xff\n4,d\n", ["a", "d"], (1, 1)),
        ("a.json", b'[{"text": "a"}, {"text": 5}, 7, {"n": 1}, {"text": "b"}]', ["a", "b"], (3, 0)),
    ],
)
def test_bad_rows_are_skipped_on_request_counted_and_listed(tmp_path, name, content, texts, skipped):
    corpus = read(written(tmp_path, name, content), tmp_path, skip_bad_rows=True)
    assert [d.text for d in corpus] == texts
    counts = corpus.sources[0].skipped
    assert (counts.get("broken", 0), counts.get("undecodable", 0)) == skipped
    assert corpus.skipped_total == len(corpus.skipped) == sum(skipped)
    assert all(s.source.endswith(name) and s.detail for s in corpus.skipped)


def test_a_file_that_is_not_text_is_skipped_whole_on_request(tmp_path):
    (tmp_path / "docs").mkdir()
    for name, content in [("a.txt", b"good"), ("b.txt", b"\xff"), ("c.md", b"\0"), ("d.html", b"caf\xe9")]:
        written(tmp_path, f"docs/{name}", content)
    corpus = read(tmp_path / "docs", tmp_path, skip_bad_rows=True)
    assert [d.id for d in corpus] == ["a.txt"]
    assert [(s.location, s.reason) for s in corpus.skipped] == [
        ("b.txt", "undecodable"),
        ("c.md", "undecodable"),
        ("d.html", "undecodable"),
    ]


def test_a_missing_text_column_is_not_a_bad_row(tmp_path):
    with pytest.raises(DataError, match="text_column"):
        read(written(tmp_path, "a.jsonl", b'{"n": 1}\n'), tmp_path, skip_bad_rows=True)


def test_a_json_file_over_the_limit_names_the_way_out(tmp_path):
    path = written(tmp_path, "a.json", json.dumps([{"text": "x" * 2**17}] * 8).encode())
    with pytest.raises(DataError) as error:
        read(path, tmp_path, max_document_mib=0.125)
    assert_said(error, path, "larger than 8 × max_document_mib = 1", "JSON lines (.jsonl)")


def test_the_limit_of_the_csv_module_is_put_back(tmp_path):
    before = csv.field_size_limit()
    read(written(tmp_path, "a.csv", b"text\na\n"), tmp_path)
    with pytest.raises(DataError):
        read(written(tmp_path, "b.csv", b'text\n"a'), tmp_path)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("ending", ["txt", "html", "jsonl", "json", "csv", "parquet", "jsonl.gz"])
def test_no_input_whatever_ends_in_anything_but_documents_or_a_data_error(tmp_path, ending):
    draw = random.Random(ending)
    nameless = []
    pieces = [b'{"text": "a"}', b"\n", b'"', b",", b"\xff", b"\0", b"[", b"}", b"<p>", b"<![", b"text", b"\r"]
    for n in range(150):
        content = b"".join(draw.choices(pieces, k=draw.randint(0, 12)))
        if ending.endswith(".gz"):
            content = gzip.compress(content)[: draw.randint(0, 60)]
        path = written(tmp_path, f"{n}.{ending}", content)
        for skip in [False, True]:
            try:
                assert all(d.text.strip() for d in read(path, tmp_path, skip_bad_rows=skip))
            except DataError as error:
                nameless += [str(error)] if path not in str(error) else []
    assert not nameless
