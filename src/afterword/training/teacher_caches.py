"""The teacher read once: what it says of every window of a run, on the disk before the first step.

A teacher is causal, so what it says at a position of a window is the same in every epoch, draw, seed and method that
reads the window after the same BOS. The one rule: a window is read whole, once, and looked up by position.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from afterword import models
from afterword.data import SpecialTokens
from afterword.data.batching import Packing, reading_groups, reading_view, to_device
from afterword.methods import Term
from afterword.models.teacher_cache import SHARD_MIB, Origin, TeacherCache, given_fingerprint, open_cache
from afterword.storage.locks import held
from afterword.training.sources import Source
from afterword.types import Example, Window


@dataclass(frozen=True, kw_only=True)
class Caching:
    """Where a run's teacher is cached."""

    folder: Path
    """Of the caches: one for every part of what is read."""
    by_content: bool = False
    """Whether a cache's folder is named after what it holds, so that runs of all kinds share the place."""


@dataclass(frozen=True, eq=False)
class CachingTeacher:
    """A teacher with all that what it says follows from."""

    teacher: models.LiveTeacher
    tokenizer: Any
    packing: Packing
    device: torch.device
    caching: Caching
    terms: tuple[Term, ...]

    def caches(
        self, parts: Sequence[Source], windows: np.ndarray, name: str, console: Console | None = None
    ) -> tuple[TeacherCache | None, ...]:
        """Of every part, the cache with at least these windows (numbered over all parts); None where no teacher reads.

        What is missing is computed. `name` begins the folders' names where they have none of their content.
        """
        say = console or Console(quiet=True)
        numbered = enumerate(zip(parts, self._own(parts, windows), strict=True))
        return tuple(
            None if own is None else self._cache(part, own, f"{name}-{number}", say) for number, (part, own) in numbered
        )

    def tokens(self, parts: Sequence[Source], windows: np.ndarray) -> int:
        """What is read of these windows, once."""
        own = self._own(parts, windows)
        return sum(
            int(read_lengths(part)[each].sum()) for part, each in zip(parts, own, strict=True) if each is not None
        )

    def size(self, parts: Sequence[Source], windows: np.ndarray) -> tuple[int, int]:
        """Rows of these windows, and the bytes that they would take; nothing is written."""
        own = [(part, own) for part, own in zip(parts, self._own(parts, windows), strict=True) if own is not None]
        rows = [int(read_lengths(part)[windows].sum()) for part, windows in own]
        return sum(rows), sum(count * self._row_bytes(part) for count, (part, _) in zip(rows, own, strict=True))

    def _own(self, parts: Sequence[Source], windows: np.ndarray) -> Iterator[np.ndarray | None]:
        """Of every part, its own of these windows; None where no teacher reads it."""
        first = 0
        for part in parts:
            taught = any(term.objective.needs_teacher and term.reads(part.source) for term in self.terms)
            own = windows[(windows >= first) & (windows < first + len(part.windows))] - first
            yield own if taught else None
            first += len(part.windows)

    def _cache(self, part: Source, windows: np.ndarray, name: str, say: Console) -> TeacherCache:
        origin, lengths = self._origin(part), read_lengths(part)
        folder = self.caching.folder / (origin.named() if self.caching.by_content else name)
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever comes first computes; other processes, of this run or of others, wait and find it.
        with held(folder / "writing.lock", "writes the same teacher cache"):
            cache = open_cache(folder, origin, lengths)
            missing = cache.missing(windows)
            if len(missing):
                there = f", continued: {len(windows) - len(missing):,} were there" if cache.shards else ""
                say.print(f"teacher: reads {len(missing):,} windows of {part.name} once{there}", highlight=False)
                cache = self._filled(cache, part, missing, say)
        return cache

    def _row_bytes(self, part: Source) -> int:
        # What the teacher's rows are is found by reading the shortest window.
        (row,) = self._rows([full_text_ids(part.windows[int(part.windows.lengths.argmin())], part.special)])
        return row.shape[1] * row.element_size()

    def _origin(self, part: Source) -> Origin:
        texts = hashlib.sha256()
        for i in range(len(part.windows)):
            ids = part.windows[i].token_ids.astype(np.int64)
            texts.update(len(ids).to_bytes(8, "little") + ids.tobytes())
        bos, said = part.special.bos_ids, self._said_of_the_model
        return Origin(**said, bos_ids=tuple(bos), texts=texts.hexdigest())

    @cached_property
    def _said_of_the_model(self) -> dict[str, str]:
        model, device = self.teacher.model, self.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        dtype = str(models.causal_lm(model).dtype)
        return {
            "model": given_fingerprint(model),
            "configuration": models.configuration_sha256(model, adapted=False),
            "precision": f"{dtype}, autocast {autocast}" if autocast else dtype,
            "tokenizer": hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest(),
            "rows": "hidden states",
        }

    def _filled(self, cache: TeacherCache, part: Source, missing: np.ndarray, say: Console) -> TeacherCache:
        held: list[tuple[int, Tensor]] = []
        groups = reading_groups(cache.lengths[missing].tolist(), self.packing)
        with Progress(console=say, transient=True, disable=not say.is_terminal) as progress:
            for group in progress.track(groups, description="teacher"):
                windows = missing[group].tolist()
                texts = [full_text_ids(part.windows[window], part.special) for window in windows]
                held += zip(windows, self._rows(texts), strict=True)
                if sum(rows.numel() * rows.element_size() for _, rows in held) >= SHARD_MIB * 2**20:
                    cache, held = cache.with_shard(*zip(*held, strict=True)), []
        return cache.with_shard(*zip(*held, strict=True)) if held else cache

    def _rows(self, texts: Sequence[np.ndarray]) -> list[Tensor]:
        """Of every text [n + 1]: rows [n, ·] for all its tokens but the last, which is only predicted."""
        read = [text[:-1] for text in texts]
        states = self.teacher.trained_states(to_device(reading_view(read, self.packing.layout), self.device))
        return list(torch.split(states.cpu(), [len(text) for text in read]))


def full_text_ids(window: Window, special: SpecialTokens) -> np.ndarray:
    """Everything that any teacher reads of a window, and the token after it: BOS, its tokens, EOS.

    A window in the middle of a document has no token after it that anyone predicts; EOS, or 0, stands there too.
    """
    end = 0 if special.eos_id is None else special.eos_id
    return np.concatenate([special.bos_ids, window.token_ids, [end]]).astype(np.int64)


def read_lengths(part: Source) -> np.ndarray:
    """[windows]: rows of each, which are those of BOS and its tokens."""
    return part.windows.lengths + len(part.special.bos_ids)


def from_cache(example: Example, window: Window, special: SpecialTokens, cache: TeacherCache) -> Example:
    """The example with what the teacher says at its positions, instead of something for the teacher to read."""
    ids, whole = example.teacher_ids, full_text_ids(window, special)
    assert ids is not None, "a view that gives the teacher nothing to read is of no use to it"
    # The last token is only predicted: it may be an EOS of the view's own.
    assert np.array_equal(ids[:-1], whole[: len(ids) - 1]), "a teacher reads a window from its beginning"
    segments = (replace(s, teacher_rows=cache.rows(window.index, s.teacher_positions)) for s in example.segments)
    return replace(example, teacher_ids=None, segments=tuple(segments))
