"""Which generator writes, and where its texts are kept."""

import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from afterword.errors import CheckpointError, ConfigError
from afterword.models import is_adapter, load_tokenizer
from afterword.pool import Workers, open_pool
from afterword.storage.hashes import text_sha256
from afterword.storage.paths import at_home, cache_folder
from afterword.storage.text_store import TextStore
from afterword.writing.local import LocalGenerator, load_to_write
from afterword.writing.spread import ModelNamed, SpreadGenerator
from afterword.writing.writer import Generator as TextGenerator
from afterword.writing.writer import StoredWriter

RECORD = "written.jsonl"
"""Of a run folder: every text that was used, with the prompt that it was written for."""

VLLM = "vllm"
"""Of generators: vLLM in this process."""


@dataclass(frozen=True, kw_only=True)
class GeneratorChoice:
    """What a person says of what writes: the settings of the panel Writing."""

    generator: str | None = None
    """None: the model that is taught. `vllm`: a model by vLLM. http(s)://…: an endpoint. Else: another model's name."""
    generator_model: str | None = None
    """The model that vLLM runs, or the endpoint's name for its own."""
    generator_requests: int = 8
    """Requests to an endpoint at once."""
    written_folder: str | None = None
    """Of the store; None: in Afterword's cache."""
    precision: str = "auto"
    """Of another model that writes here."""


@dataclass(frozen=True)
class Spread:
    """Processes that write, each with a model of its own."""

    workers: Workers
    name: str
    """Of the model that is taught, as a process loads it."""
    precision: str = "auto"


@contextmanager
def open_writer(
    load: Callable[[], Any],
    tokenizer: Any,
    choice: GeneratorChoice | None = None,
    *,
    record: Path | None = None,
    spread: Spread | None = None,
) -> Generator[StoredWriter]:
    """What writes for a command, until the block ends.

    `load` gives the model that is taught, in eval mode and where it computes; it is asked once at most, and not where
    another one writes. `record` is a file that gets what was used, and is gone on from. Without a cache the texts are
    in the record alone. With `spread` to more than this process, the model writes there, and is not loaded here.
    ConfigError for a generator that there is not.
    """
    chosen, taught = choice or GeneratorChoice(), cache(load)
    with ExitStack() as opened:
        apart = opened.enter_context(_spread(spread, tokenizer, chosen)) if spread else None
        generator = apart or _generator(taught, tokenizer, chosen, opened)
        write_all = apart.write_all if apart else None
        own = opened.enter_context(TextStore(record)) if record else None
        folder = Path(at_home(chosen.written_folder)) if chosen.written_folder else cache_folder("written")
        if folder is None and own is not None:
            yield StoredWriter(generator, own, taught, tokenizer, write_all=write_all)
            return
        place = folder or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="afterword-written-")))
        store = opened.enter_context(TextStore(place / _file_of(generator.name)))
        yield StoredWriter(generator, store, taught, tokenizer, own, write_all)


def _generator(taught: Callable[[], Any], tokenizer: Any, choice: GeneratorChoice, opened: ExitStack) -> TextGenerator:
    """Imported where it is chosen: each needs libraries of its own. What it begins is ended with `opened`."""
    if choice.generator is None:
        return LocalGenerator(taught(), tokenizer)
    if is_address(choice.generator):
        from afterword.writing.endpoint import EndpointGenerator

        if not choice.generator_model:
            raise ConfigError("generator_model: missing. Give the name that the endpoint has for its model.")
        return EndpointGenerator(choice.generator, choice.generator_model, tokenizer, choice.generator_requests)
    if choice.generator == VLLM:
        from afterword.writing.vllm_engine import VllmGenerator

        assert choice.generator_model, "whoever chooses vllm names a model: the one that is taught"
        if is_adapter(choice.generator_model):
            problem = f"generator_model: {choice.generator_model!r} is an adapter, and vllm is begun with a whole model"
            raise ConfigError(f"{problem}. Give the merged model (--merge-adapter writes it), or leave generator out.")
        with named_by("generator_model"):
            vllm = VllmGenerator(choice.generator_model, load_tokenizer(choice.generator_model))
        opened.callback(vllm.close)
        return vllm
    with named_by("generator"):
        return LocalGenerator(load_to_write(choice.generator, choice.precision), load_tokenizer(choice.generator))


@contextmanager
def _spread(spread: Spread, tokenizer: Any, choice: GeneratorChoice) -> Generator[SpreadGenerator | None]:
    """The model that is taught, or another, in the processes of a pool; None where this process is all there is."""
    if spread.workers.is_here:
        yield None
        return
    with open_pool(spread.workers) as pool:
        if choice.generator is None:
            yield SpreadGenerator(pool, ModelNamed(spread.name, spread.precision), tokenizer)
        else:
            with named_by("generator"):
                read = load_tokenizer(choice.generator)
            yield SpreadGenerator(pool, ModelNamed(choice.generator, choice.precision), read)


@contextmanager
def named_by(setting: str) -> Generator[None]:
    """A model that cannot be used is said by the setting that names it: ConfigError."""
    try:
        yield
    except CheckpointError as error:
        raise ConfigError(str(error).replace("model_name_or_path", setting, 1)) from error


def is_address(generator: str) -> bool:
    """Whether a generator is an endpoint."""
    return generator.lower().startswith(("http://", "https://"))


def _file_of(name: str) -> str:
    """The file of a generator's texts, to be known again by a person."""
    return f"{re.sub('[^A-Za-z0-9.]+', '-', name)[:80].strip('-.')}-{text_sha256(name)[:8]}.jsonl"
