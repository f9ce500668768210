"""The teacher read once: what it says of every text of a run, on the disk before the first step.

A teacher is causal, so what it says at a position of a text is the same in every epoch, draw, seed and method whose
text begins alike. The one rule: a text is read whole, once, and looked up by what it is and by position.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from afterword import models
from afterword.data.batching import Packing, reading_groups, reading_view, to_device
from afterword.models.teacher_cache import SHARD_MIB, Origin, TeacherCache, given_fingerprint, open_cache, text_key
from afterword.storage.locks import held
from afterword.training.sources import Source
from afterword.training.steps import ExampleKey, Examples
from afterword.training.teacher_texts import begins_windows, read_texts, window_text


@dataclass(frozen=True, kw_only=True)
class Caching:
    """Where a run's teacher is cached."""

    folder: Path
    by_content: bool = False
    """Whether the cache is in a folder of its own there, named after the teacher, so that all runs share the place."""


@dataclass(frozen=True)
class Read:
    """What is going to be drawn."""

    examples: Examples
    epochs: tuple[tuple[int, np.ndarray], ...]
    """Number of each, and windows [n], numbered over all sources of the examples."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A text that the teacher reads: the draw that asks for it, which of that draw's it is, and its length."""

    draw: ExampleKey
    part: int
    tokens: int


@dataclass(frozen=True, eq=False)
class CachingTeacher:
    """A teacher with all that what it says follows from."""

    teacher: models.LiveTeacher
    packing: Packing
    device: torch.device
    caching: Caching

    def cached(self, reads: Sequence[Read], console: Console | None = None) -> tuple[TeacherCache, int]:
        """The cache with every text that is going to be read, and their tokens. What is missing is computed."""
        say, origin, tokens = console or Console(quiet=True), self._origin(), 0
        folder = self.caching.folder / origin.named() if self.caching.by_content else self.caching.folder
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever comes first computes; other processes, of this run or of others, wait and find it.
        with held(folder / "writing.lock", "writes the same teacher cache"):
            cache = open_cache(folder, origin)
            for read in reads:
                for source, texts in _texts(read):
                    tokens += sum(text.tokens for text in texts.values())
                    cache = self._with(cache, read.examples, source, texts, say)
        return cache, tokens

    def size(self, reads: Sequence[Read]) -> tuple[int, int]:
        """Tokens of every text that is going to be read, and the bytes that they would take; nothing is written."""
        tokens, width = 0, 0
        for read in reads:
            for _, texts in _texts(read):
                tokens += sum(text.tokens for text in texts.values())
                if not width and texts:
                    # What the teacher's rows are is found by reading the shortest text.
                    shortest = min(texts.values(), key=lambda text: text.tokens)
                    (row,) = self._rows([_ids_of(read.examples, shortest)])
                    width = row.shape[1] * row.element_size()
        return tokens, tokens * width

    def _with(
        self, cache: TeacherCache, examples: Examples, source: Source, texts: Mapping[str, _Text], say: Console
    ) -> TeacherCache:
        """The cache with these texts of a source."""
        missing = [key for key in texts if key not in cache]
        if not missing:
            return cache
        there = len(texts) - len(missing)
        continued = f", continued: {there:,} were there" if there else ""
        say.print(f"teacher: reads {len(missing):,} windows of {source.name} once{continued}", highlight=False)
        waiting: list[tuple[str, Tensor]] = []
        groups = reading_groups([texts[key].tokens for key in missing], self.packing)
        with Progress(console=say, transient=True, disable=not say.is_terminal) as progress:
            for group in progress.track(groups, description="teacher"):
                keys = [missing[i] for i in group]
                waiting += zip(keys, self._rows([_ids_of(examples, texts[key]) for key in keys]), strict=True)
                if sum(rows.numel() * rows.element_size() for _, rows in waiting) >= SHARD_MIB * 2**20:
                    cache, waiting = cache.with_shard(*zip(*waiting, strict=True)), []
        return cache.with_shard(*zip(*waiting, strict=True)) if waiting else cache

    def _rows(self, texts: Sequence[np.ndarray]) -> list[Tensor]:
        """Of every text [n]: rows [n, H]."""
        states = self.teacher.trained_states(to_device(reading_view(texts, self.packing.layout), self.device))
        return list(torch.split(states.cpu(), [len(text) for text in texts]))

    def _origin(self) -> Origin:
        model, device = self.teacher.model, self.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        dtype = str(models.causal_lm(model).dtype)
        return Origin(
            model=given_fingerprint(model),
            configuration=models.configuration_sha256(model, adapted=False),
            precision=f"{dtype}, autocast {autocast}" if autocast else dtype,
        )


def _texts(read: Read) -> Iterator[tuple[Source, dict[str, _Text]]]:
    """Of every source, the texts that a teacher reads of it, by key; sources that no teacher reads are left out."""
    examples, first = read.examples, 0
    everything = np.unique(np.concatenate([windows for _, windows in read.epochs]))
    for source in examples.sources:
        texts: dict[str, _Text] = {}
        taught = [term.objective.needs_teacher and term.reads(source.source) for term in examples.terms]
        for number in np.flatnonzero(taught).tolist():
            # Other views may read another text in every draw.
            alike = begins_windows(examples.terms[number].view)
            for epoch, windows in [(0, everything)] if alike else read.epochs:
                for window in windows[(windows >= first) & (windows < first + len(source.windows))].tolist():
                    draw = ExampleKey(window, epoch, number)
                    for part, ids in enumerate(_ids(examples, draw)):
                        texts.setdefault(text_key(ids), _Text(draw, part, len(ids)))
        if any(taught):
            yield source, texts
        first += len(source.windows)


def _ids_of(examples: Examples, text: _Text) -> np.ndarray:
    return _ids(examples, text.draw)[text.part]


def _ids(examples: Examples, draw: ExampleKey) -> list[np.ndarray]:
    """The texts that the teacher reads for a draw."""
    source, index = examples.located(draw.window)
    window = source.windows[index]
    if begins_windows(examples.terms[draw.term].view):
        return [window_text(window, source.special)]
    return read_texts(examples[draw], window, source.special)
