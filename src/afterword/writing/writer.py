"""Requests → texts: what is in the store is read there, and the rest is written and stored."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from afterword.progress import Progress
from afterword.storage.text_store import TextStore
from afterword.types import Request, Written


class Generator(Protocol):
    """What writes: a model here, or another program."""

    @property
    def name(self) -> str:
        """What its texts follow from beside the request: part of every key."""
        ...

    def write(self, requests: Sequence[Request]) -> Iterator[tuple[int, Written]]:
        """A text for each request, by its number, as soon as it is done: in any order."""
        ...


@dataclass(frozen=True)
class StoredWriter:
    """A generator, and the store of what it has written."""

    generator: Any
    store: TextStore

    @property
    def model(self) -> Any:
        """The model as it was given."""
        return self.generator.model

    @property
    def tokenizer(self) -> Any:
        """Of the model that is taught."""
        return self.generator.tokenizer

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        """A text for each request, in their order."""
        keys = [self._key(request) for request in requests]
        missing = {key: i for i, key in enumerate(keys) if key not in self.store}
        wanted = [requests[i] for i in missing.values()]
        names = list(missing)
        with Progress(what, len(wanted)) as progress:
            for number, written in self.generator.write(wanted):
                self.store.add(names[number], json.dumps(asdict(written)))
                progress.advance()
        return [Written(**json.loads(self.store[key])) for key in keys]

    def _key(self, request: Request) -> str:
        return json.dumps([self.generator.name, asdict(request)])


Advance = Callable[[int], object]
