"""What a run reads, by source: its documents, and the sources of its mixture, each as windows."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError

from afterword import models
from afterword.corpus import Corpus, Dialogue, read_corpus
from afterword.data import (
    Prepared,
    RefusedRow,
    Rendering,
    SpecialTokens,
    View,
    WholeDocument,
    WindowSettings,
    as_words,
    prepare,
    read_prepared,
    special_tokens,
)
from afterword.data.mixture import SourceShare
from afterword.distributed import is_main_process, main_process_first
from afterword.errors import CheckpointError, ConfigError, DataError
from afterword.methods import Method
from afterword.training.written_documents import DocumentWriter, Foreseen
from afterword.types import Document


@dataclass(frozen=True, kw_only=True)
class MixtureSource:
    """A source of general text: what it is, and how much of it an epoch reads."""

    documents: Any
    """A corpus, or what `read_corpus` takes."""
    share: SourceShare
    held_out: Any = None
    """More of it that is not trained: what losses are evaluated on. As `documents`."""
    chat: bool = False
    """Render conversations by the model's chat template, instead of as plain text."""
    skip_bad_rows: bool = False
    """Leave out, counted, what the template refuses, instead of stopping."""


@dataclass(frozen=True)
class Source:
    """Windows of the documents, or of one source of general text."""

    name: str
    windows: Prepared
    special: SpecialTokens
    share: SourceShare | None = None
    """None: the documents."""
    eos: bool = True
    """Whether a document is read with the EOS that `special` has for it."""
    files: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of general text, what was read of its files and what was skipped, as data.json has it."""

    @property
    def source(self) -> str | None:
        """The source of general text that it is; None: the documents."""
        return self.name if self.share else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names that its losses are counted by."""
        return self.windows.sources if self.share is None else (self.name,)

    @property
    def lengths(self) -> np.ndarray:
        """[windows] tokens of each as it is read whole: BOS, its own, and EOS where a document ends.

        What shares and steps are counted in. A document counts whole, and once, also where a split view draws only
        pieces of it and where another term reads it again: METHODS speaks of tokens of text, not of passes over it.
        """
        eos = self.eos and self.special.eos_id is not None
        bos = np.where(self.windows.begun, 0, len(self.special.bos_ids))
        return self.windows.lengths + bos + (self.windows.ends if eos else 0)

    def report(self, read: Mapping[str, Any]) -> dict[str, Any]:
        """Name, what was asked for, what there is, what is `read` of it; and a note where that is too little."""
        asked = asdict(self.share) if self.share else {}
        skipped = dict(self.windows.counts.skipped_windows)
        there = {"windows": len(self.windows), "skipped_windows": skipped, **self.files}
        return {"source": self.name, "asked": asked, **there, **read} | self._note(read)

    def _note(self, read: Mapping[str, Any]) -> dict[str, str]:
        if not self.share or not read["ran_out"]:
            return {}
        unit, asked = ("tokens", self.share.tokens) if self.share.tokens else ("samples", self.share.samples)
        found = read[f"{unit[:-1]}_share"]
        if not asked or found >= asked:
            return {}
        problem = f"{100 * found:.1f} % of all {unit} are read of it, not {100 * asked:.1f} %"
        why = f"it gives no more after max_epochs: {self.share.max_epochs:g} passes"
        remedy = f"Give more of it, raise max_epochs, or lower {unit}."
        return {"note": f"mixture.{self.name}: {problem}, because {why}. {remedy}"}


def as_windows(
    documents: Any,
    work: Path,
    view: View,
    tokenizer: Any,
    window_settings: WindowSettings,
    special: SpecialTokens | None = None,
    *,
    render: Rendering | None = None,
    writer: DocumentWriter | Foreseen | None = None,
) -> Prepared:
    """Windows as they are, or documents (a corpus, a data set, a list of texts or rows) read into windows.

    With a `writer`, a view that writes prepares the documents first.
    """
    if isinstance(documents, Prepared):
        return documents
    around = special or special_tokens(tokenizer, view.bos, view.join)
    how = replace(window_settings, join=view.join, anchored=view.anchored)
    path = work / "windows.arrow"

    def read() -> Prepared:
        """Read on the main process; the others find the files."""
        if not is_main_process():
            return read_prepared(path)
        corpus, written = documents if isinstance(documents, Corpus) else read_corpus(documents, cache_dir=work), None
        if writer and view.writes:
            corpus, written = writer.written(view, corpus, tokenizer, work, window_settings.max_length)
        return prepare(corpus, tokenizer, around, how, view, path, render=render, written=written)

    return main_process_first(read)


def mixture_sources(
    mixture: Mapping[str, MixtureSource],
    work: Path,
    view: View,
    tokenizer: Any,
    window_settings: WindowSettings,
    *,
    held_out: bool = False,
) -> Iterator[Source]:
    """The windows of every source of general text, read whole; with `held_out`, of what is held out of it instead."""
    whole = WholeDocument(bos=view.bos, join=view.join)
    for number, (name, text) in enumerate(mixture.items()):
        documents = text.held_out if held_out else text.documents
        if documents is None:
            continue
        special, render, own_settings = special_tokens(tokenizer, view.bos, view.join), None, window_settings
        if text.chat:
            # The template has its own BOS and its own end of a turn.
            special, render = SpecialTokens((), None), _by_template(tokenizer, name, lenient=text.skip_bad_rows)
            # The template's own are meant; those of another source stay what they are.
            own_settings = replace(window_settings, control_tokens="keep")
        place = work / f"{'eval' if held_out else 'general'}-{number}"
        corpus = _as_corpus(documents, place)
        windows = as_windows(corpus, place, whole, tokenizer, own_settings, special, render=render)
        yield Source(name, windows, special, text.share, files=_of_files(corpus))


def _as_corpus(documents: Any, work: Path) -> Corpus:
    if isinstance(documents, Corpus):
        return documents
    return main_process_first(lambda: read_corpus(documents, cache_dir=work))


def _of_files(corpus: Corpus) -> dict[str, Any]:
    said = corpus.to_json()
    names = ("documents", "characters", "sources", "skipped_total", "stopped_at_max_documents", "not_read")
    return {name: said[name] for name in names} | {"skipped_rows": said["skipped"]}


def _by_template(tokenizer: Any, name: str, *, lenient: bool) -> Rendering:
    """The conversation as the model reads it; a document that is none is a single turn of the model."""
    if not tokenizer.chat_template:
        problem = f"mixture.{name}.format: 'chat' needs a model with a chat template, and this tokenizer has none"
        raise ConfigError(f"{problem}. Use 'plain', or save the tokenizer with a template.")

    def rendered(document: Document) -> Document:
        """A ConfigError for a document that is no conversation; for one that the template refuses a DataError.

        Where such rows are skipped, it is a RefusedRow.
        """
        if document.dialogue is None:
            raise ConfigError(f"mixture.{name}.format: 'chat' needs instructions or preferences, not documents.")
        said = Dialogue.from_json(document.dialogue).messages
        messages = [{**each, "content": as_words(tokenizer, each["content"])} for each in said]
        try:
            return replace(document, text=tokenizer.apply_chat_template(messages, tokenize=False))
        except (TemplateError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            if lenient:
                raise RefusedRow("refused_by_template", reason) from error
            problem = f"mixture.{name}: the model's chat template refuses {document.id} ({reason})"
            remedy = "Take it out, or set skip_bad_rows: true to leave out such rows, counted"
            raise DataError(f"{problem}. {remedy}.") from error

    return rendered


def special_tokens_for(tokenizer: Any, method: Method, general: Collection[str] = ()) -> SpecialTokens:
    """What stands around the documents of a method. CheckpointError where it needs an EOS that is not there.

    `general`: names of the sources of general text that are read beside them.
    """
    special = special_tokens(tokenizer, method.view.bos, method.view.join)
    if special.eos_id is None and any(term.view.needs_eos for term in method.terms(general=general)):
        problem = f"tokenizer: the method {method.name!r} ends every document with EOS, and this tokenizer has none."
        raise CheckpointError(f"{problem} Set tokenizer.eos_token and save it with the model.")
    return special


def check_tokens(model: Any, tokenizer: Any, sources: Iterable[Source]) -> None:
    """CheckpointError where what will be read has tokens that the model has no embedding for."""
    rows = models.vocabulary_of(model)
    # Only such a tokenizer can give them, and reading every window takes its time.
    if max(tokenizer.get_vocab().values(), default=0) >= rows:
        largest = (source.windows.largest_token() for source in sources)
        models.refuse_unembedded(tokenizer, largest, rows, str(model.name_or_path) or type(model).__name__)
