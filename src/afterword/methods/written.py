"""What views that write share: how texts are drawn, asked for, and put into passages.

What is written follows from the model, the document and the prompt alone, never from the run's seed: runs, seeds and
methods share it. The writing itself is imported where it is used, so that a method can be declared without it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from afterword.data.passages import passages_to_json
from afterword.data.views import Writer
from afterword.method_options import NewTokens, SamplingTemperature, TopP
from afterword.types import Document, Passage, Request, Sampling, Written

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Fields of a view that writes."""

    new_tokens: NewTokens = 256
    sampling_temperature: SamplingTemperature = 1.0
    top_p: TopP = 1.0

    @property
    def takes_parts(self) -> bool:
        """A document has to fit the context with what is asked of it and written."""
        return True

    def sampling(self, new_tokens: int | None = None) -> Sampling:
        """How its texts are drawn; `new_tokens` of those that are short."""
        temperature, top_p = self.sampling_temperature, self.top_p
        return Sampling(max_new_tokens=new_tokens or self.new_tokens, temperature=temperature, top_p=top_p)


def asked(name: str, **values: str) -> Turns:
    """The turns of a prompt of the package, with its places filled."""
    from afterword.writing import prompt

    return prompt(name).filled(**values)


def about(document: Document, name: str) -> str:
    """What a record says of a text: its document, and the prompt with its version."""
    from afterword.writing import prompt

    return f"{document.id}, prompt {name} version {prompt(name).version}"


def conversation(writer: Writer, turns: Turns) -> str:
    """The turns as the taught model reads them, up to where its reply begins."""
    from afterword.writing import as_conversation

    return as_conversation(writer.tokenizer, turns)


def drawn(request: Request, count: int) -> list[Request]:
    """So many requests that differ in their draws alone; one where nothing is drawn."""
    return [replace(request, seed=i) for i in range(count if request.sampling.temperature else 1)]


def written_for(writer: Writer, groups: Sequence[Sequence[Request]], what: str) -> Iterator[list[Written]]:
    """For every group of requests its texts, without empty ones and without those that it has already."""
    texts = iter(writer.write([request for group in groups for request in group], what))
    for group in groups:
        found = dict[str, Written]()
        for _ in group:
            text = next(texts)
            found.setdefault(text.text.strip(), text)
        yield [text for words, text in found.items() if words]


def with_passages(document: Document, passages: Iterable[Passage]) -> Document:
    """The document with passages that are trained in place of its text."""
    return replace(document, passages=passages_to_json(passages))
