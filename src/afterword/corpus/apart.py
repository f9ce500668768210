"""Formats read apart: in another process, with a limit of memory and of time, whatever the file makes its reader do.

A reader there may crash, hang or fill its memory: here that is one sentence about one file. The process is kept for
the next file, and ends with this one. What it sends are lines of JSON, never code.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afterword.corpus.columns import CorpusOptions, NoTextError
from afterword.corpus.others import rows_of, uncompressed
from afterword.corpus.rows import Origin, Rows
from afterword.errors import ConfigError, DataError
from afterword.plugins import imported
from afterword.storage.files import BadRowError, size_of
from afterword.types import Document

_SECONDS, _SECONDS_A_MIB = 60, 60
"""Until a file, or the next rows of it, are there: so long, and so much longer for each MiB of the file."""
_MEMORY_MIB, _MEMORY_A_LIMIT = 256, 8
"""Above what an idle process has: so much, and so many times the largest document."""
_FILES_A_PROCESS = 200
"""Then a fresh one is started, which holds nothing of the files before."""
_ROWS, _CHARACTERS = 64, 2**20
"""Rows are sent together: at most so many, and no more than the first that goes over so much text."""
_AS_TEXT = "\0text"
"""Name of the only part of an object that stands for a date, a UUID or the like."""


def read_apart(reader: str, origin: Origin, options: CorpusOptions, *, of_others: bool = False) -> Rows:
    """The rows that a reader, `package.module:NAME`, makes of a file, from a process of its own.

    The reader takes the origin and the options; one `of_others` takes the path alone (see `others.py`).

    What goes wrong in it is the BadRowError or DataError that it would be here. Where the process ends, or takes more
    time or memory than it may, the file is a BadRowError.
    """
    seconds = _SECONDS + _SECONDS_A_MIB * size_of(origin.path) / 2**20
    worker = _spare()
    try:
        # The process may have been started elsewhere, and a path is said as the person gave it.
        asked = {"reader": reader, "origin": origin._asdict(), "options": asdict(options), "folder": os.getcwd()}
        worker.ask({**asked, "of_others": of_others, "python_path": sys.path})
        while (answer := worker.answer(seconds)).get("rows") is not None:
            yield from ((place, _row(kind, value)) for place, kind, value in answer["rows"])
    except GeneratorExit:
        worker.end()
        raise
    if not worker.alive:
        raise BadRowError("broken", answer["lost"])
    _keep(worker)
    if "data_error" in answer:
        raise (NoTextError if answer["no_text"] else DataError)(answer["data_error"])
    if "bad" in answer:
        raise BadRowError(*answer["bad"])


def _row(kind: str, value: Any) -> Any:
    return BadRowError(*value) if kind == "bad" else Document(**value) if kind == "document" else value


class _Worker:
    """The process, as this one sees it."""

    def __init__(self) -> None:
        package = str(Path(__file__).parents[2])
        code = f"import sys; sys.path.insert(0, {package!r}); from afterword.corpus.apart import serve; serve()"
        # Arrow's own allocators reserve more addresses than they use, and the limit counts addresses.
        quiet = {
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "ARROW_IO_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        }
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **quiet}, **pipes)
        self.alive, self.files = True, 0

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request; its answer is read by the caller."""
        self.files += 1
        assert self.process.stdin
        with contextlib.suppress(OSError):  # It ended: the answer says so.
            self.process.stdin.write(_line(request))
            self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """What it says next; `lost`, and the end of it, where that does not come."""
        assert self.process.stdout
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), self.process.kill()))
        timer.daemon = True
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if line.endswith(b"\n"):
            return json.loads(line.decode("utf-8", "surrogatepass"), object_hook=_from_json)
        self.end()
        how = f"took more than {seconds:.0f} s" if late.is_set() else f"crashed (status {self.process.returncode})"
        return {"lost": f"its reader {how}"}

    def end(self) -> None:
        """Kill the process, and close what led to it."""
        self.alive = False
        self.process.kill()
        self.process.wait()
        for pipe in filter(None, (self.process.stdin, self.process.stdout)):
            with contextlib.suppress(OSError):
                pipe.close()


_spares: list[_Worker] = []
_lock = threading.Lock()


def _spare() -> _Worker:
    with _lock:
        return _spares.pop() if _spares else _Worker()


def _keep(worker: _Worker) -> None:
    if worker.files >= _FILES_A_PROCESS:
        worker.end()
        return
    with _lock:
        _spares.append(worker)


@atexit.register
def _end_all() -> None:
    while _spares:
        _spares.pop().end()


# A forked process must not talk to the workers of the one that it was forked from.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_spares.clear)


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=_as_json).encode("utf-8", "surrogatepass") + b"\n"


def _as_json(value: Any) -> Any:
    """Values that JSON does not have. As a label they are their text; none of them is the text of a document."""
    return [f"{value!r:.40}"] if isinstance(value, bytes | bytearray | memoryview) else {_AS_TEXT: str(value)}


def _from_json(found: dict[str, Any]) -> Any:
    return found[_AS_TEXT] if found.keys() == {_AS_TEXT} else found


# The other side of the pipe.


def serve() -> None:
    """Answer one request after the other, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a library prints is no answer.
    sys.setrecursionlimit(2000)
    for request in sys.stdin.buffer:
        for line in _answers(json.loads(request.decode("utf-8", "surrogatepass"))):
            answers.write(line)
            answers.flush()


def _answers(request: dict[str, Any]) -> Iterator[bytes]:
    os.chdir(request["folder"])
    origin, options = Origin(**request["origin"]), CorpusOptions(**request["options"])
    mib = _MEMORY_MIB + round(_MEMORY_A_LIMIT * options.max_document_mib)
    try:
        read = _reader(request)
        with _limited(mib):
            yield from map(_line, _together(read(origin, options)))
        yield _line({})
    except ConfigError as error:
        yield _line({"data_error": f"{origin.shown}: {'; '.join(error.problems)}", "no_text": False})
    except DataError as error:
        yield _line({"data_error": str(error), "no_text": isinstance(error, NoTextError)})
    except BadRowError as error:
        yield _line({"bad": _parts(error)})
    except MemoryError:
        problem = f"more than {mib} MiB of memory are needed to read it"
        yield _line({"bad": ["broken", problem, "Raise max_document_mib"]})
    except Exception as error:  # Whatever a library finds wrong with a file that somebody made wrong on purpose.
        why = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        yield _line({"bad": ["broken", f"not readable ({why})"]})


def _parts(error: BadRowError) -> list[str]:
    return [error.reason, error.problem, error.remedy]


def _reader(request: dict[str, Any]) -> Callable[[Origin, CorpusOptions], Rows]:
    """The reader that is asked for. One of others is found where the process that asks would find it."""
    sys.path += [place for place in request["python_path"] if place not in sys.path]
    found = imported("documents", request["reader"])
    return (lambda origin, _: rows_of(found(uncompressed(origin.path)))) if request["of_others"] else found


def _together(rows: Rows) -> Iterator[dict[str, Any]]:
    """Rows, some at a time."""
    some, characters = list[Any](), 0
    for place, row in rows:
        kind = "bad" if isinstance(row, BadRowError) else "document" if isinstance(row, Document) else "row"
        value = _parts(row) if isinstance(row, BadRowError) else row
        value = asdict(value) if isinstance(value, Document) else value
        some.append([place, kind, value])
        parts = value.values() if isinstance(value, dict) else [value]
        characters += sum(len(part) if isinstance(part, str) else len(str(part)) for part in parts)
        if len(some) >= _ROWS or characters > _CHARACTERS:
            yield {"rows": some}
            some, characters = [], 0
    yield {"rows": some}


@contextlib.contextmanager
def _limited(mib: int) -> Iterator[None]:
    """Let the process have so much more memory, where the system can be told (not on Windows)."""
    try:
        import resource
    except ImportError:
        yield
        return
    pages = Path("/proc/self/statm")
    if not pages.exists():  # macOS does not keep such a limit.
        yield
        return
    now = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
