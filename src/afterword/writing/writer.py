"""Requests → texts: what was written before is read, the rest is written and stored."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from afterword.errors import DataError
from afterword.progress import Progress
from afterword.storage.hashes import json_sha256
from afterword.storage.text_store import TextStore
from afterword.types import Request, Written

Advance = Callable[[int], object]
"""Told how many more texts are done."""
Batch = dict[int, tuple[Written, int]]
"""Texts that were written together and their new tokens, by the numbers of their requests."""


class Generator(Protocol):
    """What writes: a model here, or another program."""

    @property
    def name(self) -> str:
        """What its texts follow from beside prompt, sampling and seed: part of every key."""
        ...

    def prompt_of(self, request: Request) -> str:
        """What is asked, in full: part of the key, and shown in the record."""
        ...

    def tokens(self, requests: Sequence[Request]) -> int:
        """Of all prompts together, about."""
        ...

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """The numbers of requests that are best written together: every number once, by the requests alone."""
        ...

    def write(self, requests: Sequence[Request], advance: Advance) -> Iterator[Batch]:
        """Every request of one batch, in parts that are stored as soon as they come."""
        ...


@dataclass(frozen=True, eq=False)
class StoredWriter:
    """A generator, what it has written, and a record of what was used of it.

    A key is the content of generator, prompt, sampling and seed. What another process writes meanwhile is waited for,
    not written twice.
    """

    generator: Generator
    store: TextStore
    load: Callable[[], Any]
    """Gives the model that is taught."""
    tokenizer: Any
    """Of the model that is taught."""
    record: TextStore | None = None
    """Of the run: every text that it used, and enough to go on without the store. None: there is none beside it."""
    write_all: Callable[[Sequence[Sequence[Request]]], Iterator[tuple[int, Batch]]] | None = None
    """Writes batches in several processes at once: each one's texts with its number. None: one after the other here."""

    @property
    def model(self) -> Any:
        """The model that is taught, as it was given: in eval mode, whatever writes."""
        return self.load()

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        """A text for each request, in their order; what is empty is said. `what` names them: `rephrasings`."""
        rows = [self._row(request, what) for request in requests]
        keys = [row["key"] for row in rows]
        first = sorted({key: number for number, key in reversed(list(enumerate(keys)))}.values())
        missing = {place for place, number in enumerate(first) if self._found(keys[number]) is None}
        if missing:
            self._write([requests[i] for i in first], [rows[i] for i in first], missing, what)
        found = [self._found(key) for key in keys]
        if self.record is not None:
            used = {row["key"]: {**row, **known} for row, known in zip(rows, found, strict=True) if known}
            if unknown := [row for key, row in used.items() if key not in self.record]:
                self.record.add(unknown)
        texts = [Written(row["text"], row["ended"]) for row in found if row is not None]
        assert len(texts) == len(requests), "every request has a text"
        if empty := sum(not text.text for text in texts):
            reason = "the prompt does not fit the context, or the reply ended at once"
            logging.getLogger("afterword").warning("%s: %d of %d are empty: %s.", what, empty, len(texts), reason)
        return texts

    def _write(self, requests: Sequence[Request], rows: Sequence[dict[str, Any]], missing: set[int], what: str) -> None:
        """Write what is missing, by the numbers of the requests, which differ."""
        new = [requests[i] for i in sorted(missing)]
        most = sum(request.sampling.max_new_tokens for request in new)
        cost = f"{self.generator.tokens(new):,} prompt tokens, at most {most:,} new ones"
        began, written = time.monotonic(), 0
        keys = [row["key"] for row in rows]
        numbers_of = {key: number for number, key in enumerate(keys)}
        planned = [[keys[i] for i in batch] for batch in self._batches(requests, missing)]
        with Progress(what, len(new), cost=cost) as progress:
            for there, mine in self._in_turn([planned] if self.write_all else [[batch] for batch in planned]):
                numbers, ahead = [[numbers_of[key] for key in batch] for batch in mine if batch], progress.done
                for of_batch, part in self._parts(numbers, requests, progress.advance):
                    texts = {of_batch[place]: text for place, (text, _) in part.items()}
                    self.store.add([{**rows[i], "text": text.text, "ended": text.ended} for i, text in texts.items()])
                    written += sum(tokens for _, tokens in part.values())
                    if self.write_all:
                        progress.advance(len(part), _rate(written, began))
                progress.advance(ahead + there - progress.done, _rate(written, began))

    def _parts(
        self, batches: Sequence[list[int]], requests: Sequence[Request], advance: Advance
    ) -> Iterator[tuple[list[int], Batch]]:
        """What is written of the batches, in parts, each with the numbers of its batch."""
        asked = [[requests[i] for i in batch] for batch in batches]
        if self.write_all:
            yield from ((batches[number], part) for number, part in self.write_all(asked))
        else:
            for batch, own in zip(batches, asked, strict=True):
                yield from ((batch, part) for part in self.generator.write(own, advance))

    def _batches(self, requests: Sequence[Request], missing: set[int]) -> Iterator[list[int]]:
        """Batches of all requests of which nothing is there: a run that goes on writes in those it was stopped in.

        What is left of the others is put together anew.
        """
        rest = set[int]()
        for batch in self.generator.batches(requests):
            if missing.issuperset(batch):
                yield batch
            else:
                rest |= missing.intersection(batch)
        if left := sorted(rest):
            yield from ([left[i] for i in batch] for batch in self.generator.batches([requests[i] for i in left]))

    def _in_turn(self, groups: Sequence[Sequence[list[str]]]) -> Iterator[tuple[int, list[list[str]]]]:
        """Of every group of batches how many texts are there after it, and by batch what is missing of it.

        What another process writes now comes last, when that is done.
        """
        later = list[Sequence[list[str]]]()
        for group, wait in ((group, wait) for wait, these in ((False, groups), (True, later)) for group in these):
            keys = [key for batch in group for key in batch]
            with self.store.claimed(keys, wait=wait) as found:
                mine = set(found)
                others = {key for key in keys if key not in mine and key not in self.store}
                if others:
                    later.append([[key for key in batch if key in others] for batch in group])
                yield len(keys) - len(others), [[key for key in batch if key in mine] for batch in group]

    def _row(self, request: Request, what: str) -> dict[str, Any]:
        """What a line of the store says of a text."""
        prompt = self.generator.prompt_of(request)
        # The likeliest tokens are the same for every seed.
        seed = request.seed if request.sampling.temperature else 0
        of = {"generator": self.generator.name, "prompt": prompt, **asdict(request.sampling), "seed": seed}
        return {"key": json_sha256(of), "what": what, "about": request.about, **of}

    def _found(self, key: str) -> dict[str, Any] | None:
        for place in (self.record, self.store):
            if place is not None and key in place:
                row = place[key]
                if isinstance(row.get("text"), str) and isinstance(row.get("ended"), bool):
                    return row
                raise DataError(
                    f"{place.path}: the row {key!r} has no text. Remove it; its text is then written again."
                )
        return None


def _rate(tokens: int, began: float) -> str:
    return f"{tokens / max(1e-9, time.monotonic() - began):,.0f} new tokens a second"
