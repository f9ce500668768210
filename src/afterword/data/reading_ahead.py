"""Documents read into windows, by worker processes that run ahead where there are several; in the documents' order.

A chunk of documents is the unit of work, and only a few chunks are under way at any time: memory does not grow with
the corpus.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from afterword.corpus import Corpus
from afterword.data.views import View
from afterword.data.windows import ReadDocument, SpecialTokens, WindowSettings, read_document
from afterword.errors import ConfigError
from afterword.types import Document

_CHUNK_BYTES = 2**18
"""Text of a chunk: about a quarter of a second of reading. A longer document begins one."""
_ROW_BYTES = 2048  # What a document is taken to need beside its text: chunks of short ones stay small, too.
_WORKER_CHARACTERS = 2**20
"""A worker is started for every so many, which take about a second to read: starting one takes a tenth of that."""
_MOST_WORKERS = 8


class RefusedRow(Exception):  # noqa: N818  it is counted, and no error
    """A document that cannot be shown, and is left out: the reason it is counted by, and what was said."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Rendering(Protocol):
    """What is read of a document in place of its text."""

    @property
    def identity(self) -> str:
        """What this follows from, the document and the tokenizer aside."""
        ...

    def __call__(self, document: Document) -> Document:
        """The document with the text that is read. RefusedRow where it is to be left out."""
        ...


@dataclass(frozen=True, eq=False)
class Reader:
    """Everything that the windows of a corpus follow from. Picklable where `render` is."""

    corpus: Corpus
    tokenizer: Any
    special: SpecialTokens
    window_settings: WindowSettings
    view: View
    render: Rendering | None = None

    @cached_property
    def sources(self) -> dict[str, int]:
        """Numbers of the documents' sources, by name, in the order in which they come."""
        return {name: number for number, name in enumerate(self.corpus.dataset.unique("source"))}

    def read(self, documents: range) -> list["Read"]:
        """These documents of the corpus, each read into windows."""
        rows = map(dict, self.corpus.dataset.select(documents))
        return [self._read(Document(**row)) for row in rows]

    def _read(self, document: Document) -> "Read":
        source = self.sources[document.source]
        try:
            shown = self.render(document) if self.render else document
        except RefusedRow as row:
            return Read(document.id, source, None, (), row)
        read = read_document(shown, source, self.tokenizer, self.special, self.window_settings)
        return Read(document.id, source, read, tuple(map(self.view.skip_reason, read.windows)))


@dataclass(frozen=True, slots=True)
class Read:
    """A document that was read, and of each of its windows why the view cannot train it, or None."""

    document: str
    source: int
    read: ReadDocument | None
    """None for one that was refused."""
    skip_reasons: tuple[str | None, ...]
    refused: RefusedRow | None = None


def workers_for(corpus: Corpus) -> int:
    """Processes that reading this corpus pays for; 1 where only starting them anew is safe, and takes seconds."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    return max(1, min(cores, _MOST_WORKERS, corpus.characters // _WORKER_CHARACTERS))


def read_ahead(reader: Reader, workers: int) -> Generator[Read]:
    """Every document of the reader's corpus, in order; read in this process where `workers` is 0 or 1.

    What a worker raises is raised here. A worker that is killed is a ConfigError of `preparation_workers`.
    """
    chunks = iter(_chunks(reader.corpus))
    if workers <= 1:
        yield from itertools.chain.from_iterable(map(reader.read, chunks))
        return
    # Set before the workers are there, which share it.
    _ = reader.sources
    with _pool(reader, workers) as pool, _explained(workers):
        waiting: deque[Future[list[Read]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_read, chunk))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


@contextlib.contextmanager
def _pool(reader: Reader, workers: int) -> Iterator[ProcessPoolExecutor]:
    # Forked where that is usual: a worker is there at once, shares torch and tokenizer, which it has no need to load,
    # and does not run the person's script again, as a spawned one would.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(reader,))
    try:
        with _interrupted_after():
            # Forked workers all start with the first that is submitted.
            pool.submit(os.getpid)
        yield pool
    except BaseException:
        # Whatever they still read is of no use, and is not waited for.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupted_after() -> Iterator[None]:
    """Ctrl-C counts at the end of the block: Python can lose one that comes while a process forks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = list[int]()
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _explained(workers: int) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        problem = f"preparation_workers: one of the {workers} processes that read documents was killed"
        raise ConfigError(f"{problem}; memory may be short. Lower it: 1 reads in this process.") from error


def _chunks(corpus: Corpus) -> list[range]:
    """Documents by number, in runs of about as much text."""
    import pyarrow.compute as pc

    texts = corpus.dataset.data.column("text")
    # Made when it is imported, where a type checker cannot see it.
    sizes = pc.binary_length(texts).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    chunk = (sizes.astype(np.int64) + _ROW_BYTES).cumsum() // _CHUNK_BYTES
    borders = [0, *(np.flatnonzero(np.diff(chunk)) + 1).tolist(), len(chunk)]
    return list(itertools.starmap(range, itertools.pairwise(borders)))


_reader: Reader | None = None
"""Of a worker process: what it reads with, given to it once."""


def _begin(reader: Reader) -> None:
    global _reader
    _reader = reader
    # Ctrl-C goes to all processes. One says so and ends the others: a worker that ended itself looks as if killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker would wait for work from a parent that was killed, for ever.
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _read(documents: range) -> list[Read]:
    assert _reader, "set when the worker began"
    return _reader.read(documents)
