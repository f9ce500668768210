"""Documents of any kind → prepared windows, for the trainer and for the command line alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from afterword.corpus import Corpus, read_corpus
from afterword.methods import Method
from afterword.models import causal_lm, context_length
from afterword.training.processes import main_process_first
from afterword.views import Prepared, Reading, prepare, special_tokens

WORK_FOLDER = ".work"
"""Inside the run folder: the corpus and its windows in Arrow. Safe to delete when the run is finished."""


def as_prepared(
    documents: Any, run: Path, name: str, *, method: Method, tokenizer: Any, model: Any, reading: Reading | None = None
) -> Prepared:
    """Windows as they are, or documents (a corpus, a data set, a list of texts or rows) read into windows."""
    if isinstance(documents, Prepared):
        return documents
    reading = reading or Reading(max_length=context_length(causal_lm(model).config))
    return main_process_first(lambda: prepare_documents(documents, run, name, method, tokenizer, reading)[1])


def prepare_documents(
    documents: Any, run: Path, name: str, method: Method, tokenizer: Any, reading: Reading, **options: Any
) -> tuple[Corpus, Prepared]:
    """Read and window documents under `run`/.work; the corpus comes back for its counts."""
    work = run / WORK_FOLDER / name
    corpus = documents if isinstance(documents, Corpus) else read_corpus(documents, cache_dir=work, **options)
    view: Any = method.view
    special = special_tokens(tokenizer, view.bos, view.join)
    reading = Reading(
        max_length=reading.max_length,
        window_overlap=reading.window_overlap,
        join=view.join,
        anchored=view.anchored,
        language=reading.language,
    )
    return corpus, prepare(corpus, tokenizer, special, reading, view, work / "windows.arrow")
