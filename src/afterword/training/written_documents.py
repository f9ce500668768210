"""Documents that a view writes before training; no text is written twice."""

import logging
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from afterword.corpus import Corpus, read_corpus, split_sentences
from afterword.data import View, WrittenDocuments
from afterword.distributed import is_zero3, own_device
from afterword.errors import AfterwordError, ConfigError, DataError, number_of
from afterword.models import free_memory, only_reading, refuse_name
from afterword.settings.adapt import AdaptSettings
from afterword.types import Document, Request, Written
from afterword.writing import RECORD, GeneratorChoice, load_to_write, open_writer
from afterword.writing.opening import VLLM, is_address, named_by
from afterword.writing.replies import prompt_tokens, unmixed

WRITTEN = RECORD
"""Of a run folder: every text that the run used of what was written for its view."""
_WORDS = 60
"""In the place of a text, where texts are only counted."""


@dataclass(frozen=True, kw_only=True)
class DocumentWriter:
    """What writes for a view, and where its texts are kept."""

    load: Callable[[], Any]
    """Gives the model as it was given, whole. It writes on the GPU where there is one, and goes back to its place."""
    folder: Path
    """Of the run: what it used is in its `written.jsonl`."""
    choice: GeneratorChoice | None = None

    def written(
        self, view: View, documents: Corpus, tokenizer: Any, work: Path, longest: int
    ) -> tuple[Corpus, WrittenDocuments]:
        """What the view makes of the documents, gathered in `work`. Texts that are stored are not written again.

        `longest`: the context in tokens. A view that asks for it gets longer documents in parts (see `in_parts`).
        """
        with ExitStack() as held:

            def taught() -> Any:
                return _ready(self.load(), type(view).__name__, held)

            with open_writer(taught, tokenizer, self.choice, record=self.folder / WRITTEN) as writer:
                given = in_parts(documents, tokenizer, longest) if view.takes_parts else documents
                found = read_corpus(_some(view.prepare(writer, given)), cache_dir=work / "written")
        free_memory()
        skipped = found.skipped_total
        about = (type(view).__name__, len(found), found.characters, skipped, found.content_sha256)
        return found, WrittenDocuments(*about)


def _some(documents: Iterable[Document]) -> Iterator[Document]:
    """The documents; DataError where there is none."""
    found = iter(documents)
    if (first := next(found, None)) is not None:
        yield first
        yield from found
    else:
        problem = f"documents: nothing of use was written about them (see {WRITTEN} of the run)"
        raise DataError(f"{problem}. Give shorter documents, or let a larger model write (generator).")


def in_parts(documents: Iterable[Document], tokenizer: Any, longest: int) -> Iterator[Document]:
    """Documents of at most half the context, longer ones cut between sentences: the rest is for what is written.

    The parts of one are named `ID/part-N`, and their sections say which. A sentence that is longer alone is a part of
    its own.
    """
    for document in documents:
        room, parts, tokens = longest // 2, [""], 0
        if _length(tokenizer, document.text) <= room:
            yield document
            continue
        for start, end in split_sentences(document.text):
            sentence = document.text[start:end]
            length = _length(tokenizer, sentence)
            if tokens + length > room and parts[-1]:
                parts, tokens = [*parts, ""], 0
            parts[-1], tokens = parts[-1] + sentence, tokens + length
        for number, text in enumerate(parts, start=1):
            section = ", ".join(filter(None, (document.section, f"part {number}")))
            yield replace(document, id=f"{document.id}/part-{number}", text=text, section=section)


def _length(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


@dataclass(kw_only=True)
class Foreseen:
    """What a view would ask for: counted, with words that mean nothing in the place of every text."""

    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    """Where every text is as long as it may be."""
    whole: bool = True
    """Whether the view could do without the texts, and without the model."""

    def written(self, view: View, documents: Corpus, tokenizer: Any, work: Path, longest: int) -> tuple[Corpus, None]:
        """The documents as they were given; what the view asks for is counted."""
        self.whole = False
        with suppress(AfterwordError), _unsaid():
            given = in_parts(documents, tokenizer, longest) if view.takes_parts else documents
            for _ in view.prepare(_Counting(self, tokenizer), given):
                pass
            self.whole = True
        return documents, None

    def in_words(self) -> str:
        """What a dry run says of it."""
        about = "All other numbers are of the documents as they were given. Before training, the method asks for"
        # What is asked for next follows from what was written, which nobody knows yet.
        how = "about" if self.whole else "at least"
        count = f"{how} {number_of(self.requests, 'text')}, from {how} {self.prompt_tokens:,} prompt tokens"
        return f"{about} {count}; where all are as long as they may be, they have {self.new_tokens:,} new tokens."


@contextmanager
def _unsaid() -> Generator[None]:
    """What a view says of its texts is not said: there are none."""
    logger = logging.getLogger("afterword")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@dataclass(frozen=True)
class _Counting:
    """A writer that writes nothing."""

    found: Foreseen
    tokenizer: Any

    @property
    def model(self) -> Any:
        """There is none."""
        raise ConfigError("method: what it does with the model is not foreseen. Leave --dry-run out.")

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        """A question and an answer for each, as long as a short paragraph, alike in nothing."""
        first = self.found.requests
        self.found.requests += len(requests)
        self.found.prompt_tokens += sum(len(prompt_tokens(self.tokenizer, each)) for each in requests)
        self.found.new_tokens += sum(each.sampling.max_new_tokens for each in requests)
        return [_meaningless(first + number) for number in range(len(requests))]


def _meaningless(number: int) -> Written:
    drawn = random.Random(number)
    words = ["".join(drawn.choices("aeioubdklmnprst", k=4)) for _ in range(_WORDS)]
    return Written(f"Question: what is {words[0]} {words[1]}?\nAnswer: it is {' '.join(words[2:])}.", ended=True)


def writer_of(settings: AdaptSettings, run: Path) -> DocumentWriter:
    """What writes for a run with these settings, in their output folder; in that of the run where they name none."""
    # What a method has the model write, it has the model as it was given write (METHODS §3).
    name, precision = settings.held_to, settings.precision
    named = name if settings.generator == VLLM else None
    # Not the weights that are trained: those are in float32 where writing is faster without.
    asked = precision if precision in ("float32", "bf16") else "auto"
    choice = GeneratorChoice(
        generator=settings.generator,
        generator_model=settings.generator_model or named,
        generator_requests=settings.generator_requests,
        written_folder=settings.written_folder,
        precision=asked,
    )
    folder = Path(settings.output_dir or run)
    return DocumentWriter(load=lambda: load_to_write(name, asked), folder=folder, choice=choice)


def refuse_generator(settings: AdaptSettings, view: View) -> None:
    """ConfigError for a generator that there cannot be, or that cannot write for the view, before anything is read."""
    generator = settings.generator
    if generator is None:
        return
    if generator == VLLM or is_address(generator):
        if view.chooses_tokens:
            raise unmixed(generator)
        return
    with named_by("generator"):
        refuse_name(generator)


def _ready(model: Any, view: str, held: ExitStack) -> Any:
    """The model in eval mode and without gradients, on the GPU where there is one, until what is held ends."""
    if is_zero3(model):
        problem = f"method: its view {view} writes with the model, which ZeRO-3 has in shards"
        raise ConfigError(f"{problem}. Write without it: the texts stay in the run folder.")
    device = torch.device(own_device())
    held.callback(_moved, model, model.device)
    held.enter_context(only_reading(_moved(model, device)))
    return model


def _moved(model: Any, device: torch.device) -> Any:
    # A quantised model refuses to be moved, also to where it is.
    return model if model.device == device else model.to(device)
