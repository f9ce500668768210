"""What a run changed, on a fixed sample of its own documents and of held-out text, looked at as soon as it ends.

Sentences alone, before and after, beside what the model before makes of them with their document: enough for a first
verdict, in a few seconds for a small model; `afterword evaluate` says the rest. The one rule: it is measured on the
result as it was saved, and one model is in memory at a time.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from afterword.corpus import CorpusOptions, read_corpus
from afterword.data import SpecialTokens, WindowSettings, read_document, special_tokens
from afterword.distributed import device_type
from afterword.evaluation.losses import VIEW, losses_by_unit, nll_values
from afterword.evaluation.measure import Measured, Models
from afterword.evaluation.measures import MEASURES
from afterword.models import causal_lm, context_length, load_adapted, load_tokenizer, replace_file
from afterword.progress import Progress
from afterword.settings.adapt import AdaptSettings
from afterword.types import Example, Score, Window

WINDOWS = 32
"""Of each part, at most: the first of the sample's documents."""
_DOCUMENTS = 64
"""Read at most, to find those windows in."""
FILE = "learned.json"


def look(settings: AdaptSettings, documents: Any = None) -> list[Score]:
    """The scores `learning/trained` and, with held-out documents, `learning/held_out` of a finished run folder.

    They are those of `evaluate`, on fewer documents and without KL, and go to learned.json in the run folder.
    `documents` are those that the run was given from Python; nothing is measured where they cannot be read again, nor
    where none has a second sentence.
    """
    run, name = Path(settings.output_dir or ""), settings.held_to
    parts = {"learning/trained": list(settings.documents) if documents is None else documents}
    parts |= {"learning/held_out": list(settings.eval_documents)} if settings.eval_documents else {}
    again = {task: given for task, given in parts.items() if not hasattr(given, "__next__")}
    tokenizer = load_tokenizer(str(run))
    special = special_tokens(tokenizer, "auto", "document")
    reference = _loaded(name)
    length = context_length(causal_lm(reference).config, settings.max_length)
    read = {task: _examples(given, settings, tokenizer, special, length) for task, given in again.items()}
    read = {task: examples for task, examples in read.items() if examples}
    count = 2 * sum(map(len, read.values()))
    with Progress("first look", count, cost=f"{count // 2} windows of documents, before and after") as progress:
        before = _sums(reference, tokenizer, special, length, read, progress)
        # The next model takes the memory of this one.
        del reference
        alone = {task: [replace(example, teacher_ids=None) for example in of] for task, of in read.items()}
        after = _sums(_loaded(str(run)), tokenizer, special, length, alone, progress) if read else {}
    scores = [score for task in read for score in _scores(task, before[task], after[task]["nll_before"], settings.seed)]
    replace_file(run / FILE, json.dumps({"format": 1, "scores": [asdict(score) for score in scores]}, indent=1))
    return scores


def _loaded(name: str) -> Any:
    return load_adapted(name).eval().to(device_type())


def _examples(
    sources: Any, settings: AdaptSettings, tokenizer: Any, special: SpecialTokens, length: int
) -> list[Example]:
    """Of the first documents with a second sentence, one window each; its number is the example's source."""
    options = replace(CorpusOptions.of(settings), max_documents=min(settings.max_documents or _DOCUMENTS, _DOCUMENTS))
    window_settings, windows = WindowSettings(max_length=length, language=settings.language), list[Window]()
    with tempfile.TemporaryDirectory(prefix="afterword-look-") as scratch:
        for document in read_corpus(sources, cache_dir=Path(scratch), options=options):
            found = read_document(document, 0, tokenizer, special, window_settings).windows
            windows += [window for window in found if VIEW.skip_reason(window) is None][:1]
            if len(windows) == WINDOWS:
                break
    built = [VIEW.build(window, special, np.random.default_rng((settings.seed, i))) for i, window in enumerate(windows)]
    return [replace(example, source=i) for i, example in enumerate(built)]


def _sums(
    model: Any,
    tokenizer: Any,
    special: SpecialTokens,
    length: int,
    read: Mapping[str, Sequence[Example]],
    progress: Progress,
) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for task, examples in read.items():
        found[task] = losses_by_unit(Models(model, None, tokenizer, special, length), examples, len(examples))
        progress.advance(len(examples))
    return found


def _scores(task: str, before: Mapping[str, np.ndarray], nll_after: np.ndarray, seed: int) -> list[Score]:
    mean = {name: values / before["positions"] for name, values in before.items()}
    values = nll_values(mean["nll_before"], mean["nll_with_context"], nll_after / before["positions"])
    details = {"targets": VIEW.targets, "seed": seed, "documents": "the first"}
    return MEASURES[task].scores(Measured(values, details))
