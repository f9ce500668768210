"""What is kept: unique documents with unique ids, one file that appears whole or not at all, and counts."""

import json
import os
import sys

import pytest
from commands import run_python

from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.errors import DataError
from afterword.types import Document, Skipped


def read(rows, cache_dir, **options) -> Corpus:
    return read_corpus([rows], cache_dir=cache_dir, options=CorpusOptions(**options))


def test_documents_come_back_as_they_were(tmp_path):
    documents = [Document(f"d{i}", f" text {i} 😀\n", f"t{i}", "2026", "s") for i in range(10_000)]
    corpus = read(documents, tmp_path)
    assert list(corpus) == documents
    assert corpus[3] == documents[3]
    assert corpus[-1] == documents[-1]
    with pytest.raises(IndexError):
        corpus[10_000]
    columns = ["id", "text", "title", "date", "source", "dialogue", "section", "passages"]
    assert corpus.dataset.column_names == columns
    assert corpus.dataset.cache_files == [{"filename": str(corpus.path)}]


def test_empty_and_repeated_texts_are_skipped_counted_and_listed(tmp_path):
    corpus = read([{"text": "A."}, {"text": " \n\t"}, {"text": "  A.\n"}, {"text": "B."}], tmp_path)
    assert [d.text for d in corpus] == ["A.", "B."]
    assert corpus.skipped == (
        Skipped("memory", "row 1", "empty", "nothing but whitespace"),
        Skipped("memory", "row 2", "duplicate", "same text as memory:0"),
    )
    assert corpus.sources[0].skipped == {"duplicate": 1, "empty": 1}


def test_repeated_texts_are_found_across_sources(tmp_path):
    corpus = read_corpus([[{"text": "A."}], [{"text": "A."}, {"text": "B."}]], cache_dir=tmp_path)
    assert [dict(s.skipped) for s in corpus.sources] == [{}, {"duplicate": 1}]
    assert [d.id for d in corpus] == ["memory:0", "memory-2:1"]


def test_ids_taken_by_another_text_are_made_unique_and_counted(tmp_path):
    ids = ["x", "x#2", "x", "x", "y"]
    corpus = read([{"id": wanted, "text": str(n)} for n, wanted in enumerate(ids)], tmp_path)
    assert [d.id for d in corpus] == ["x", "x#2", "x#3", "x#4", "y"]
    assert corpus.sources[0].renamed_ids == 2


def test_only_the_first_thousand_skipped_are_listed_and_all_are_counted(tmp_path):
    corpus = read([{"text": "A."}] * 1501, tmp_path)
    report = corpus.to_json()
    assert (len(report["skipped"]), report["skipped_listed"], report["skipped_total"]) == (1000, 1000, 1500)


def test_the_report_is_json_with_what_data_json_needs(tmp_path):
    corpus = read([{"text": "A."}, {"text": ""}], tmp_path)
    assert json.loads(json.dumps(corpus.to_json())) == {
        "documents": 1,
        "characters": 2,
        "content_sha256": corpus.content_sha256,
        "stopped_at_max_documents": False,
        "sources": [
            {
                "source": "memory",
                "documents": 1,
                "characters": 2,
                "files": 0,
                "skipped": {"empty": 1},
                "ignored_files": {},
                "ignored_folders": [],
                "named_files": {},
                "renamed_ids": 0,
            }
        ],
        "skipped": [{"source": "memory", "location": "row 1", "reason": "empty", "detail": "nothing but whitespace"}],
        "skipped_listed": 1,
        "skipped_total": 1,
        "not_read": [],
    }


def test_the_hash_is_of_the_content_and_not_of_the_place(tmp_path):
    rows = [{"id": "a", "title": "T", "text": "One."}, {"id": "b", "text": "Two."}]
    for name in ["here", "there"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    hashes = {
        read(rows, tmp_path / "cache").content_sha256,
        read_corpus(tmp_path / "here", cache_dir=tmp_path / "c1").content_sha256,
        read_corpus(tmp_path / "there" / "rows.jsonl", cache_dir=tmp_path / "c2").content_sha256,
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "other",
    [
        [{"id": "b", "text": "Two."}, {"id": "a", "text": "One."}],
        [{"id": "a", "text": "One."}, {"id": "b", "text": "Two!"}],
        [{"id": "a", "text": "One."}, {"id": "c", "text": "Two."}],
        [{"id": "a", "text": "One.", "title": "T"}, {"id": "b", "text": "Two."}],
        [{"id": "aO", "text": "ne."}, {"id": "b", "text": "Two."}],
        [{"id": "a", "text": "One."}],
    ],
)
def test_the_hash_changes_with_order_text_id_and_title(tmp_path, other):
    rows = [{"id": "a", "text": "One."}, {"id": "b", "text": "Two."}]
    assert read(rows, tmp_path).content_sha256 != read(other, tmp_path).content_sha256


def test_reading_leaves_one_file_and_a_failed_reading_none(tmp_path):
    def broken_halfway():
        yield from ({"text": f"text {n}"} for n in range(5000))
        yield {"text": 5}

    with pytest.raises(DataError, match="row 5000"):
        read(broken_halfway(), tmp_path)
    assert os.listdir(tmp_path) == []
    corpus = read([{"text": "A."}], tmp_path)
    assert os.listdir(tmp_path) == [corpus.path.name]


def test_the_file_is_complete_before_it_has_its_name(tmp_path, monkeypatch):
    import pyarrow as pa

    rename, seen = os.replace, []

    def replace(source, target):
        with open(source, "rb") as handle:
            seen.append((pa.ipc.open_stream(handle).read_all().num_rows, os.path.exists(target)))
        rename(source, target)

    monkeypatch.setattr("os.replace", replace)
    read([{"text": "A."}, {"text": "B."}], tmp_path)
    assert seen == [(2, False)]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(DataError, match=r"cache_dir = .*: No space left on device. Free space"):
        read([{"text": "A."}], tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_temporary_folder_is_said_as_such(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = rf"^TMPDIR = {tmp_path}: cannot be written: No space left on device\. Free space or choose another\."
    with pytest.raises(DataError, match=said):
        read([{"text": "A."}], tmp_path / "afterword-evaluate-x" / "documents")


def test_two_corpora_in_one_folder_do_not_disturb_each_other(tmp_path):
    first = read([{"text": "A.", "id": 1, "source": "x"}], tmp_path)
    second = read([{"text": "A.", "id": 1, "source": "y"}], tmp_path)
    assert (first[0].source, second[0].source) == ("x", "y")
    assert first.path != second.path
    assert first.content_sha256 == second.content_sha256


def test_lone_surrogates_are_undecodable_in_a_text_and_replaced_in_a_title(tmp_path):
    rows = [{"text": "half \ud800 a pair"}, {"text": "whole", "title": "T\ud800"}]
    with pytest.raises(DataError, match="row 0: character 5 of the text is not valid Unicode"):
        read(rows, tmp_path)
    corpus = read(rows, tmp_path, skip_bad_rows=True)
    assert [(d.text, d.title) for d in corpus] == [("whole", "T?")]
    assert corpus.sources[0].skipped == {"undecodable": 1}


MEASURE = """
import json, resource, sys
from pathlib import Path
import bs4, datasets, pyarrow.parquet
from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import DataError
unit = 2**20 if sys.platform == "darwin" else 2**10
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before, said = peak(), ""
try:
    documents = len(read_corpus(sys.argv[1], cache_dir=Path(sys.argv[2])))
except DataError as error:
    documents, said = 0, str(error)
print(json.dumps([documents, said, peak() - before]))
"""


def measure(source, cache_dir) -> tuple[int, str, float]:
    """Documents, error, and growth of the peak memory in MiB, of reading in a fresh process."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return tuple(json.loads(run_python("-c", MEASURE, source, cache_dir, environment=environment).out))


def test_a_large_corpus_is_read_in_bounded_memory(tmp_path):
    filler = "The quick brown fox jumps over the lazy dog. " * 60
    with open(tmp_path / "large.jsonl", "w") as handle:
        handle.writelines(f'{{"id": "d{n}", "text": "{n} {filler}"}}\n' for n in range(55_000))
    assert (tmp_path / "large.jsonl").stat().st_size > 145e6
    documents, said, growth_mib = measure(tmp_path / "large.jsonl", tmp_path / "cache")
    assert (documents, said) == (55_000, "")
    assert growth_mib < 120


def test_a_line_of_200_mb_is_refused_in_bounded_memory(tmp_path):
    with open(tmp_path / "one.jsonl", "w") as handle:
        handle.write('{"text": "fine"}\n{"text": "')
        handle.writelines("x" * 1_000_000 for _ in range(200))
        handle.write('"}\n')
    documents, said, growth_mib = measure(tmp_path / "one.jsonl", tmp_path / "cache")
    assert documents == 0
    assert "one.jsonl, line 2: larger than max_document_mib = 64" in said
    assert growth_mib < 150  # Twice the limit, while the pieces of the line are joined.
