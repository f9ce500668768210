"""Documents that a view writes before training, with the model as it was given; none of them is written twice."""

import json
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from afterword.corpus import Corpus, read_corpus
from afterword.data import View, WrittenDocuments
from afterword.distributed import is_zero3
from afterword.errors import ConfigError
from afterword.models import causal_lm, only_reading, weights_fingerprint
from afterword.storage.text_store import TextStore
from afterword.writing import LocalGenerator, StoredWriter

WRITTEN = "written.jsonl"
"""Of a run folder: every text that the model wrote for its view."""


@dataclass(frozen=True, kw_only=True)
class DocumentWriter:
    """The model that writes for a view, and where its texts are kept."""

    load: Callable[[], Any]
    """Gives the model as it was given, whole. It writes on the GPU where there is one, and goes back to its place."""
    folder: Path
    """Of the run: the texts are in its `written.jsonl`."""

    def written(self, view: View, documents: Corpus, tokenizer: Any, work: Path) -> tuple[Corpus, WrittenDocuments]:
        """What the view makes of the documents, gathered in `work`. Texts that the folder has are not written again."""
        model = self.load()
        if is_zero3(model):
            problem = f"method: its view {type(view).__name__} writes with the model, which ZeRO-3 has in shards"
            raise ConfigError(f"{problem}. Write without it: the texts stay in the run folder.")
        before, inner = model.device, causal_lm(model)
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        generation = copy(inner.generation_config)
        follows_from = [weights_fingerprint(model), type(view).__qualname__, asdict(view)]
        try:
            store = TextStore(self.folder / WRITTEN, json.dumps(follows_from, default=str))
            with store, only_reading(_moved(model, device)):
                writer = StoredWriter(LocalGenerator(model, tokenizer), store)
                found = read_corpus(view.prepare(writer, documents), cache_dir=work / "written")
        finally:
            _moved(model, before)
            inner.generation_config = generation
        skipped = found.skipped_total
        about = (type(view).__name__, len(found), found.characters, skipped, found.content_sha256)
        return found, WrittenDocuments(*about)


def _moved(model: Any, device: torch.device) -> Any:
    # A quantised model refuses to be moved, also to where it is.
    return model if model.device == device else model.to(device)
