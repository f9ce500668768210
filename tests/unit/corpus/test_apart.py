"""Readers in a process of their own: memory, time and crashes there are one sentence here."""

import os
import signal

import pytest

from afterword.corpus import CorpusOptions, apart, read_corpus
from afterword.errors import DataError


def read(source, tmp_path, **options):
    return read_corpus(source, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))


def large_page(path):
    path.write_text("<p>Mara sells bread.</p>" * 1000)
    return path


def test_a_value_of_parquet_beyond_the_limit_is_refused_in_bounded_memory(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"text": pa.array(["a" * 2**28], pa.large_string())}), tmp_path / "a.parquet", compression="zstd"
    )
    assert (tmp_path / "a.parquet").stat().st_size < 2**20
    with pytest.raises(DataError, match=r"a.parquet.*MiB of memory"):
        read(tmp_path / "a.parquet", tmp_path, max_document_mib=1)


def test_a_value_that_is_there_often_takes_no_memory_for_each(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = "a b " * 25_000
    pq.write_table(pa.table({"text": [text] * 4000}), tmp_path / "a.parquet", compression="zstd")
    corpus = read(tmp_path / "a.parquet", tmp_path, max_document_mib=1)
    assert (len(corpus), corpus.sources[0].skipped) == (1, {"duplicate": 3999})


def test_rows_of_parquet_that_are_not_utf8_are_skipped_on_request(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = pa.array([b"Mara moved \xff.", b"Other text."])
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 2, made.buffers())}), tmp_path / "a.parquet")
    corpus = read(tmp_path / "a.parquet", tmp_path, skip_bad_rows=True)
    assert ([d.text for d in corpus], corpus.sources[0].skipped) == (["Other text."], {"undecodable": 1})
    with pytest.raises(DataError, match=r"row 0.*UTF-8"):
        read(tmp_path / "a.parquet", tmp_path)


def test_a_reader_that_hangs_is_ended_and_the_next_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "_SECONDS", 0.0)
    monkeypatch.setattr(apart, "_SECONDS_A_MIB", 0.01)
    monkeypatch.setattr(apart, "_spares", [])
    with pytest.raises(DataError, match=r"a.html.*took more than"):
        read(large_page(tmp_path / "a.html"), tmp_path)
    monkeypatch.undo()
    assert len(read(tmp_path / "a.html", tmp_path)) == 1


def test_a_reader_that_crashes_is_one_sentence(tmp_path):
    large_page(tmp_path / "a.html")
    worker = apart._spare()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    apart._spares.append(worker)
    with pytest.raises(DataError, match=r"a.html.*crashed"):
        read(tmp_path / "a.html", tmp_path)


def test_values_survive_the_way(tmp_path):
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"id": 7, "text": "Straße 😀", "date": datetime.date(2026, 1, 2), "title": None}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (document,) = read(tmp_path / "a.parquet", tmp_path)
    assert (document.id, document.text, document.date) == ("7", "Straße 😀", "2026-01-02")


def test_bytes_are_no_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [b"a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="must be a string"):
        read(tmp_path / "a.parquet", tmp_path)


def test_html_is_read_in_time_proportional_to_its_length(tmp_path):
    import time

    from afterword.corpus.html import read_html

    def seconds(count):
        started = time.process_time()
        read_html("<p>Mara sells bread.</p>\n" * count)
        return time.process_time() - started

    seconds(100)
    # Sixteen times the length: 16 where time is proportional, 256 where it goes with the square.
    assert seconds(16000) < 60 * max(seconds(1000), 0.01)


def test_a_path_means_what_it_means_where_it_is_given(tmp_path, monkeypatch):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        parquet.write_table(pyarrow.table({"text": [f"This is {name}. It ends."]}), tmp_path / name / "a.parquet")
        # The process that read the first is kept for the second.
        monkeypatch.chdir(tmp_path / name)
        (document,) = read_corpus(["a.parquet"], cache_dir=tmp_path / f"cache-{name}")
        assert document.text == f"This is {name}. It ends."
