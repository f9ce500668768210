"""Documents of any kind → prepared windows, for the trainer and for the command line alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from afterword.corpus import Corpus, read_corpus
from afterword.methods import Method
from afterword.training.processes import main_process_first
from afterword.views import Prepared, Reading, prepare, special_tokens

WORK_FOLDER = ".work"
"""Inside the run folder: the corpus and its windows in Arrow. Removed when the run is finished."""


def as_prepared(documents: Any, name: str, run: Path, method: Method, tokenizer: Any, reading: Reading) -> Prepared:
    """Windows as they are, or documents (a corpus, a data set, a list of texts or rows) read into windows."""
    if isinstance(documents, Prepared):
        return documents
    return main_process_first(lambda: prepare_documents(documents, name, run, method, tokenizer, reading)[1])


def prepare_documents(
    documents: Any, name: str, run: Path, method: Method, tokenizer: Any, reading: Reading, **options: Any
) -> tuple[Corpus, Prepared]:
    """Read and window documents under `run`/.work; the corpus comes back for its counts."""
    work, view = run / WORK_FOLDER / name, method.view
    corpus = documents if isinstance(documents, Corpus) else read_corpus(documents, cache_dir=work, **options)
    special = special_tokens(tokenizer, view.bos, view.join)
    reading = replace(reading, join=view.join, anchored=view.anchored)
    return corpus, prepare(corpus, tokenizer, special, reading, view, work / "windows.arrow")
