"""Documents that a view writes before training, with the model as it was given; none of them is written twice."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afterword.corpus import Corpus, read_corpus
from afterword.data import View, WrittenDocuments
from afterword.distributed import is_zero3
from afterword.errors import ConfigError
from afterword.models import only_reading
from afterword.writing import RECORD, GeneratorChoice, open_writer

WRITTEN = RECORD
"""Of a run folder: every text that the run used of what was written for its view."""


@dataclass(frozen=True, kw_only=True)
class DocumentWriter:
    """What writes for a view, and where its texts are kept."""

    load: Callable[[], Any]
    """Gives the model as it was given, whole. It writes on the GPU where there is one, and goes back to its place."""
    folder: Path
    """Of the run: what it used is in its `written.jsonl`."""
    choice: GeneratorChoice | None = None

    def written(self, view: View, documents: Corpus, tokenizer: Any, work: Path) -> tuple[Corpus, WrittenDocuments]:
        """What the view makes of the documents, gathered in `work`. Texts that are stored are not written again."""
        model = self.load()
        if is_zero3(model):
            problem = f"method: its view {type(view).__name__} writes with the model, which ZeRO-3 has in shards"
            raise ConfigError(f"{problem}. Write without it: the texts stay in the run folder.")
        before = model.device
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        try:
            with (
                only_reading(_moved(model, device)),
                open_writer(lambda: model, tokenizer, self.choice, record=self.folder / WRITTEN) as writer,
            ):
                found = read_corpus(view.prepare(writer, documents), cache_dir=work / "written")
        finally:
            _moved(model, before)
        skipped = found.skipped_total
        about = (type(view).__name__, len(found), found.characters, skipped, found.content_sha256)
        return found, WrittenDocuments(*about)


def _moved(model: Any, device: torch.device) -> Any:
    # A quantised model refuses to be moved, also to where it is.
    return model if model.device == device else model.to(device)
