"""What is read: every format gives the documents that are in it, with their ids, titles and places."""

import gzip
import json
import os
import sys
from pathlib import Path

import pytest
from commands import run_python

from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import DataError
from afterword.types import Document

ROWS = [
    {"id": "a", "title": "Alpha", "text": "First text, with ü.", "date": "2026-01-02"},
    {"id": "b", "title": "Beta", "text": "Second text.\nOn two lines.", "date": "2026-01-03"},
]


@pytest.fixture
def read(tmp_path):
    def read(sources, **options):
        return read_corpus(sources, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))

    return read


def write_rows(path: Path, rows=ROWS) -> Path:
    """`rows` in the format that the ending says."""
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = gzip.open if path.suffix == ".gz" else open
    ending = Path(path.name.removesuffix(".gz")).suffix
    if ending == ".parquet":
        with opened(path, "wb") as handle:
            pq.write_table(pa.Table.from_pylist(rows), handle)
        return path
    with opened(path, "wt", encoding="utf-8", newline="") as handle:
        if ending == ".jsonl":
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        elif ending == ".json":
            json.dump(rows, handle)
        else:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("compressed", ["", ".gz"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_rows_give_the_same_documents_in_every_format(tmp_path, read, ending, compressed):
    path = write_rows(tmp_path / f"rows{ending}{compressed}")
    source = str(path)
    assert list(read(source)) == [Document(**row, source=source) for row in ROWS]


@pytest.mark.parametrize("ending", [".txt", ".md", ".rst", ".TXT"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_text_file_is_one_document_without_its_byte_order_mark(tmp_path, read, ending, mark):
    path = tmp_path / f"note{ending}"
    path.write_bytes(mark + "Straße\r\nzwei\rdrei\n".encode())
    assert list(read(path)) == [Document(f"note{ending}", "Straße\nzwei\ndrei\n", source=str(path))]


def test_a_folder_is_read_sorted_and_recursively_and_its_other_files_are_counted(tmp_path, read):
    for name in ["b.txt", "a/z.md", "a/y.png", "a/x.PNG", "README", ".hidden.txt", ".git/config.txt"]:
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    corpus = read(tmp_path / "docs")
    assert [d.id for d in corpus] == ["a/z.md", "b.txt"]
    assert {d.source for d in corpus} == {str(tmp_path / "docs")}
    (report,) = corpus.sources
    assert (report.files, report.ignored_files) == (2, {".png": 2, "no ending": 1})


def test_a_folder_that_links_to_itself_is_read_once(tmp_path, read):
    (tmp_path / "docs" / "inner").mkdir(parents=True)
    (tmp_path / "docs" / "one.txt").write_text("One.")
    (tmp_path / "docs" / "inner" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.txt").write_text("Two.")
    (tmp_path / "docs" / "linked").symlink_to(tmp_path / "other")
    assert [d.id for d in read(tmp_path / "docs")] == ["linked/two.txt", "one.txt"]


def test_a_glob_keeps_the_path_below_its_fixed_part_as_the_id(tmp_path, read):
    for name in ["x/one.txt", "x/deep/two.txt", "x/three.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.id for d in read(f"{tmp_path}/x/**/*.txt")] == ["deep/two.txt", "one.txt"]


def test_several_sources_keep_their_order_and_are_counted_apart(tmp_path, read):
    rows = write_rows(tmp_path / "rows.jsonl")
    (tmp_path / "note.txt").write_text("A note.")
    corpus = read([tmp_path / "note.txt", str(rows), [{"text": "From memory."}]])
    assert [d.id for d in corpus] == ["note.txt", "a", "b", "memory:0"]
    assert [s.documents for s in corpus.sources] == [1, 2, 1]
    assert corpus.sources[0].characters == 7
    assert corpus.characters == sum(len(d.text) for d in corpus)


def test_html_becomes_what_a_reader_sees(tmp_path, read):
    path = tmp_path / "page.html"
    path.write_text(
        "<html><head><title>The\n page</title><style>p {}</style></head><body><h1>Head</h1>"
        "<p>One\n  two <b>bold</b>&amp;.</p><p>Next<br>line</p><script>var x;</script><!-- no -->"
        "<ul><li>first</li><li>second</li></ul><table><tr><td>1</td><td>2</td></tr></table>"
        "<pre>def f():\n    return 1</pre>tail</body></html>"
    )
    (document,) = read(path)
    assert document.title == "The page"
    assert document.text == (
        "Head\n\nOne two bold&.\n\nNext\nline\n\nfirst\nsecond\n\n1  2\n\ndef f():\n    return 1\n\ntail"
    )


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('{"version": 1, "data": [{"id": "a", "text": "A."}]}', ["a"]),
        ('{"id": "a", "text": "A."}\n\n{"id": "b", "text": "B."}\n', ["a", "b"]),
        ('{"id": "only", "text": "A single object."}', ["only"]),
        ('["A string.", "Another."]', ["file.json:0", "file.json:1"]),
    ],
)
def test_json_files_in_their_usual_shapes(tmp_path, read, content, ids):
    (tmp_path / "file.json").write_text(content)
    assert [d.id for d in read(tmp_path / "file.json")] == ids


def test_csv_fields_may_be_long_quoted_and_on_several_lines(tmp_path, read):
    long = "word " * 50_000
    (tmp_path / "f.csv").write_text(f'\ufeffid,text\n1,"a ""quoted"", text\nof two lines"\n\n2,{long}\n')
    assert [(d.id, d.text) for d in read(tmp_path / "f.csv")] == [("1", 'a "quoted", text\nof two lines'), ("2", long)]


def test_columns_are_found_by_their_usual_names_in_any_case(read):
    rows = [{"Doc_ID": 7, "Headline": " T ", "BODY": "The text.", "Published": None, "source": "wire"}]
    assert list(read(rows)) == [Document("7", "The text.", "T", None, "wire")]


def test_named_columns_win_over_detected_ones(read):
    rows = [{"text": "not this", "story": "This.", "id": "no", "key": "yes", "title": None}]
    (document,) = read(rows, text_column="story", id_column="key")
    assert (document.id, document.text, document.title) == ("yes", "This.", None)


def test_optional_columns_may_appear_in_later_rows(tmp_path, read):
    rows = [{"text": "One."}, {"text": "Two.", "title": "Second", "id": "two"}]
    corpus = read(write_rows(tmp_path / "rows.jsonl", rows))
    assert [(d.id, d.title) for d in corpus] == [("rows.jsonl:1", None), ("two", "Second")]


def test_python_values_of_every_kind(read):
    document = Document("d", "A document.", date="2026", source="mine")
    assert list(read([document])) == [document]
    assert [d.text for d in read(["The first text, long.", "Yes."])] == ["The first text, long.", "Yes."]
    assert [d.text for d in read(text for text in ["a", "b"])] == ["a", "b"]
    assert [d.id for d in read(iter([{"text": "t", "id": 1.5}]))] == ["1.5"]


def test_data_sets_in_memory_on_disk_and_streamed(tmp_path, read):
    import datasets

    rows = datasets.Dataset.from_list([{**row, "unused": i} for i, row in enumerate(ROWS)])
    both = datasets.DatasetDict(train=rows, test=rows.select([1]))
    rows.save_to_disk(tmp_path / "saved")
    both.save_to_disk(tmp_path / "both")
    texts = [row["text"] for row in ROWS]
    assert [d.text for d in read(rows)] == texts
    assert [d.text for d in read(rows.to_iterable_dataset())] == texts
    assert [d.text for d in read(tmp_path / "saved")] == texts
    assert [d.text for d in read(f"{tmp_path}/both:train")] == texts
    assert [d.text for d in read(f"{tmp_path}/both:test")] == texts[1:]
    assert [d.text for d in read(datasets.Dataset.from_list([{"text": "x"}]).with_format("numpy"))] == ["x"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_local_data_set_folder_is_read_by_split(tmp_path, read, monkeypatch, streaming):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set" / "train.jsonl")
    write_rows(tmp_path / "set" / "test.jsonl", ROWS[:1])
    assert [d.id for d in read(f"{tmp_path}/set:test", streaming=streaming)] == ["a"]


def test_an_endless_generator_stops_at_max_documents_and_says_so(read):
    def endless():
        n = 0
        while True:
            yield f"text {n}"
            n += 1

    corpus = read([endless(), [{"text": "never looked at"}]], max_documents=5)
    assert len(corpus) == 5
    assert corpus.to_json()["stopped_at_max_documents"] is True
    assert [s.documents for s in corpus.sources] == [5, 0]


def test_importing_the_package_loads_none_of_the_large_libraries():
    code = "import sys, afterword.corpus; print(*sys.modules)"
    loaded = run_python("-c", code, environment={"PYTHONPATH": os.pathsep.join(sys.path)}).out.split()
    assert not {"torch", "transformers", "datasets", "pyarrow", "bs4", "sentencex"} & set(loaded)


def test_a_text_begins_behind_its_mark(tmp_path):
    rows = [{"text": "<answer> blue <context>  It is blue. <context> So. "}, {"text": "no mark"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    how = CorpusOptions(text_after="<context>", skip_bad_rows=True)
    read = read_corpus([str(tmp_path / "rows.jsonl")], cache_dir=tmp_path / "cache", options=how)
    assert [document.text for document in read] == ["It is blue. <context> So."]
    assert [skipped.reason for skipped in read.skipped] == ["broken"]
    with pytest.raises(DataError, match=r"line 2.*text_after = '<context>'"):
        read_corpus(
            [str(tmp_path / "rows.jsonl")], cache_dir=tmp_path / "b", options=CorpusOptions(text_after="<context>")
        )
