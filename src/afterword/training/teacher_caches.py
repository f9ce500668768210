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
from afterword.data.batching import Packing, reading_groups, teacher_views, to_device
from afterword.models.teacher_cache import SHARD_MIB, Origin, TeacherCache, given_fingerprint, open_cache
from afterword.storage.locks import held
from afterword.training.sources import Source
from afterword.training.steps import ExampleKey, Examples
from afterword.training.teacher_texts import ReadText, asked_whole, begins_windows, read_texts, window_text
from afterword.types import Example


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
    """A text that the teacher reads: the draw that asks for it, and which of that draw's it is."""

    draw: ExampleKey
    part: int
    tokens: int
    """That are read for it. What several texts of a draw begin with alike counts for the first, if it is read once."""
    rows: int


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
                for source, texts in _texts(read, self.packing):
                    tokens += sum(text.tokens for text in texts.values())
                    cache = self._with(cache, read.examples, source, texts, say)
        return cache, tokens

    def size(self, reads: Sequence[Read]) -> tuple[int, int]:
        """Tokens of every text that is going to be read, and the bytes that they would take; nothing is written."""
        tokens, rows, width = 0, 0, 0
        for read in reads:
            for _, texts in _texts(read, self.packing):
                tokens += sum(text.tokens for text in texts.values())
                rows += sum(text.rows for text in texts.values())
                if not width and texts:
                    # What the teacher's rows are is found by reading the shortest text.
                    shortest = min(texts.values(), key=lambda text: text.rows)
                    (row,) = self._rows([_asked(read.examples, shortest.draw, [shortest.part])])
                    width = row.shape[1] * row.element_size()
        return tokens, rows * width

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
        of_draws: dict[ExampleKey, list[str]] = {}
        for key in missing:
            of_draws.setdefault(texts[key].draw, []).append(key)
        draws = list(of_draws.items())
        groups = reading_groups([sum(texts[key].tokens for key in keys) for _, keys in draws], self.packing)
        with Progress(console=say, transient=True, disable=not say.is_terminal) as progress:
            for group in progress.track(groups, description="teacher"):
                keys = [key for i in group for key in draws[i][1]]
                asked = [_asked(examples, draws[i][0], [texts[key].part for key in draws[i][1]]) for i in group]
                waiting += zip(keys, self._rows(asked), strict=True)
                if sum(rows.numel() * rows.element_size() for _, rows in waiting) >= SHARD_MIB * 2**20:
                    cache, waiting = cache.with_shard(*zip(*waiting, strict=True)), []
        return cache.with_shard(*zip(*waiting, strict=True)) if waiting else cache

    def _rows(self, asked: Sequence[Example]) -> list[Tensor]:
        """Of every segment of examples: rows [n, H]."""
        views = teacher_views(asked, self.packing)
        states = self.teacher.trained_states(*(to_device(view, self.device) for view in views))
        return list(torch.split(states.cpu(), [len(s.teacher_positions) for each in asked for s in each.segments]))

    def _origin(self) -> Origin:
        model, device = self.teacher.model, self.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        dtype = str(models.causal_lm(model).dtype)
        raised = ", attention float32" if models.attention_is_raised() else ""
        return Origin(
            model=given_fingerprint(model),
            configuration=models.configuration_sha256(model, adapted=False),
            precision=f"{dtype}, autocast {autocast}{raised}" if autocast else dtype,
        )


def _texts(read: Read, packing: Packing) -> Iterator[tuple[Source, dict[str, _Text]]]:
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
                    new = {each.key: i for i, each in enumerate(_read_for(examples, draw)[1]) if each.key not in texts}
                    if new:
                        texts |= _read_together(examples, draw, new, packing)
        if any(taught):
            yield source, texts
        first += len(source.windows)


def _read_for(examples: Examples, draw: ExampleKey) -> tuple[Example, list[ReadText]]:
    """An example of a draw, and the texts that the teacher reads for it."""
    source, index = examples.located(draw.window)
    window = source.windows[index]
    if begins_windows(examples.terms[draw.term].view):
        text = window_text(window, source.special)
        return Example(window.document, window.source, text.ids, ()), [text]
    example = examples[draw]
    return example, read_texts(example, window, source.special)


def _asked(examples: Examples, draw: ExampleKey, parts: Sequence[int]) -> Example:
    """Some of the texts of a draw, with every position that is kept."""
    return asked_whole(*_read_for(examples, draw), parts)


def _read_together(
    examples: Examples, draw: ExampleKey, parts: Mapping[str, int], packing: Packing
) -> dict[str, _Text]:
    """These texts of a draw, by key."""
    asked = _asked(examples, draw, list(parts.values()))
    tokens = sum(view.tokens for view in teacher_views([asked], packing))
    found: dict[str, _Text] = {}
    for (key, part), segment in zip(parts.items(), asked.segments, strict=True):
        of_others = sum(len(s.alone) for s in asked.segments) - len(segment.alone)
        found[key] = _Text(
            draw, part, len(segment.alone) if found else tokens - of_others, len(segment.teacher_positions)
        )
    return found
