"""Worker processes change nothing but the time: the same bytes, counts and errors, little memory, a clean end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import psutil
import pytest

from afterword.corpus import read_corpus
from afterword.data import SplitContext, WindowSettings, content_hash, prepare, reading_ahead, special_tokens
from afterword.data.reading_ahead import Reader, read_ahead, workers_for
from afterword.errors import ConfigError
from afterword.types import Document

ROWS = [
    {"id": f"d{i}", "text": f"Number {i} ran. " * (1 + i % 5) + f"End {i}" * (i % 3), "source": f"s{i % 4}"}
    for i in range(150)
]


@dataclass(frozen=True, eq=False)
class Renders:
    """Does something at every document, and changes nothing."""

    do: object
    identity: str = "none"

    def __call__(self, document: Document) -> Document:
        self.do(document)
        return document


@pytest.fixture
def reader(tokenizer, tmp_path, monkeypatch):
    """A reader of 150 documents in about 15 chunks, which does something at every document."""
    monkeypatch.setattr(reading_ahead, "_CHUNK_BYTES", 10 * (reading_ahead._ROW_BYTES + 50))
    corpus, view = read_corpus(ROWS, cache_dir=tmp_path), SplitContext()
    given = (corpus, tokenizer, special_tokens(tokenizer, "auto", "document"), WindowSettings(max_length=40), view)
    return lambda do=None: Reader(*given, Renders(do) if do else None)


def written(reader, path, workers):
    given = (reader.corpus, reader.tokenizer, reader.special, reader.window_settings, reader.view, path)
    return prepare(*given, render=reader.render, workers=workers)


def number(document):
    return int(document.id.removeprefix("d"))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_write_the_same_bytes_and_count_the_same(workers, reader, tmp_path):
    # The first chunks take longest, so they are read last.
    slow = reader(lambda document: time.sleep(0.01 * (number(document) < 30)))
    alone, many = written(reader(), tmp_path / "alone.arrow", 1), written(slow, tmp_path / "many.arrow", workers)
    assert content_hash(many) == content_hash(alone)
    assert (many.counts, many.skipped, many.sources) == (alone.counts, alone.skipped, alone.sources)
    assert many.lengths.tolist() == alone.lengths.tolist()


def test_what_workers_skip_is_counted_once(reader, tmp_path):
    counts = written(reader(), tmp_path / "w.arrow", 2).counts
    # Every fifth document is a sentence and what follows it, which is nothing for every third of these.
    assert counts.skipped_windows == {"one_sentence": 10}
    assert counts.trained_documents == 140


def test_documents_come_in_their_order(reader):
    reads = list(read_ahead(reader(lambda document: time.sleep(0.002 * (number(document) % 7))), 3))
    assert [read.document for read in reads] == [row["id"] for row in ROWS]
    assert [read.source for read in reads] == [i % 4 for i in range(150)]


def refuse(document):
    if number(document) == 77:
        raise ConfigError(["mixture.x: document 77 is no conversation.", "and another."])


def test_what_a_worker_raises_is_raised_here_with_its_text(reader):
    read = read_ahead(reader(refuse), 2)
    with pytest.raises(ConfigError, match=r"document 77 is no conversation") as error:
        list(read)
    assert len(error.value.problems) == 2
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_an_error_that_names_the_setting(reader):
    parent = os.getpid()

    def die(document):
        if number(document) == 50 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ConfigError, match=r"preparation_workers: one of the 2 processes .* killed.*1 reads"):
        list(read_ahead(reader(die), 2))


def test_workers_run_only_a_little_ahead(reader):
    count = multiprocessing.get_context("fork").Value("i", 0)

    def seen(_):
        with count.get_lock():
            count.value += 1

    read = read_ahead(reader(seen), 2)
    next(read)
    time.sleep(0.5)  # Time to read all of it, for workers that are not held back.
    # Five chunks are given out before the first is waited for, of ten documents each.
    assert 10 <= count.value <= 60
    read.close()
    assert not multiprocessing.active_children()


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A process begun in the background ignores it.
from afterword.corpus import read_corpus
from afterword.data import SpecialTokens, SplitContext, WindowSettings
from afterword.data import reading_ahead
from afterword.data.reading_ahead import Reader, read_ahead

class Slow:
    identity = "slow"
    def __call__(self, document):
        time.sleep(60)

reading_ahead._CHUNK_BYTES = 4000
corpus = read_corpus([{"text": f"Text {i}."} for i in range(50)], cache_dir=sys.argv[1])
reader = Reader(corpus, None, SpecialTokens((), None), WindowSettings(max_length=40), SplitContext(), Slow())
print("begun", flush=True)
list(read_ahead(reader, 2))
"""


@pytest.mark.parametrize(("by", "to_all"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_no_worker_outlives_a_reading_that_is_stopped(by, to_all, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout.readline() == "begun\n"
    reading = psutil.Process(started.pid)
    assert waited(lambda: len(reading.children()) == 2)
    workers = reading.children()
    time.sleep(0.5)  # They have begun.
    (os.killpg if to_all else os.kill)(started.pid, by)
    said = started.communicate(timeout=20)[1]
    assert waited(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))
    # Ctrl-C reaches all, and one of them says so.
    assert said.count("KeyboardInterrupt") == (said.count("Traceback") and 1)
    assert to_all == ("KeyboardInterrupt" in said)


def test_an_interrupt_while_workers_are_forked_is_not_lost(tmp_path):
    # Python swallows what is raised in such a callback, and other packages register some.
    forking = "import os\nos.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    command = [sys.executable, "-c", SCRIPT.replace("print(", forking + "print("), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "begun\n"
    assert ended.stderr.count("KeyboardInterrupt") == 1


def waited(done):
    """Whether it comes true within ten seconds."""
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()


def test_only_long_texts_pay_for_workers(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert [workers_for(SimpleNamespace(characters=n * 2**20)) for n in (0, 1, 3, 500)] == [1, 1, 3, 8]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))
    assert workers_for(SimpleNamespace(characters=500 * 2**20)) == 2
    monkeypatch.setattr(sys, "platform", "darwin")
    assert workers_for(SimpleNamespace(characters=500 * 2**20)) == 1


def test_a_long_document_begins_a_chunk_and_one_holds_many_short_ones(tmp_path):
    texts = [{"text": f"{i}"} for i in range(300)] + [{"text": "x" * 2**19}, {"text": "end"}]
    chunks = reading_ahead._chunks(read_corpus(texts, cache_dir=tmp_path))
    assert [i for chunk in chunks for i in chunk] == list(range(302))
    assert max(map(len, chunks)) <= 2**18 // reading_ahead._ROW_BYTES + 1
    assert chunks[-1] == range(300, 302)
