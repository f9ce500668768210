"""Which generator writes, and where its texts are kept."""

import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afterword.storage.hashes import text_sha256
from afterword.storage.paths import at_home, cache_folder
from afterword.storage.text_store import TextStore
from afterword.writing.local import LocalGenerator
from afterword.writing.writer import Generator as TextGenerator
from afterword.writing.writer import StoredWriter

RECORD = "written.jsonl"
"""Of a run folder: every text that was used, with the prompt that it was written for."""


@dataclass(frozen=True, kw_only=True)
class GeneratorChoice:
    """What a person says of what writes: the settings of the panel Writing."""

    generator: str | None = None
    """None: the model that is taught. `vllm`: that model by vLLM. http(s)://…: an endpoint. Else: another model."""
    generator_model: str | None = None
    """The name of the model at the endpoint, or the model that vLLM runs."""
    generator_requests: int = 8
    """Requests to an endpoint at once."""
    written_folder: str | None = None
    """Of the store; None: in Afterword's cache."""


@contextmanager
def open_writer(
    load: Callable[[], tuple[Any, Any]], choice: GeneratorChoice | None = None, *, record: Path | None = None
) -> Generator[StoredWriter]:
    """What writes for a command, until the block ends.

    `load` gives the model that is taught, in eval mode and where it computes, and its tokenizer. `record` is a file
    that gets what was used, and is gone on from. Without a cache the texts are in the record alone.
    """
    chosen = choice or GeneratorChoice()
    generator = _generator(load, chosen)
    with ExitStack() as opened:
        own = opened.enter_context(TextStore(record)) if record else None
        folder = Path(at_home(chosen.written_folder)) if chosen.written_folder else cache_folder("written")
        if folder is None and own is not None:
            yield StoredWriter(generator, own)
            return
        place = folder or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="afterword-written-")))
        store = opened.enter_context(TextStore(place / _file_of(generator.name)))
        yield StoredWriter(generator, store, own)


def _generator(load: Callable[[], tuple[Any, Any]], choice: GeneratorChoice) -> TextGenerator:
    return LocalGenerator(*load())


def _file_of(name: str) -> str:
    """The file of a generator's texts, to be known again by a person."""
    return f"{re.sub('[^A-Za-z0-9.]+', '-', name)[:80].strip('-.')}-{text_sha256(name)[:8]}.jsonl"
