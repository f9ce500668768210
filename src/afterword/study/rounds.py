"""Documents → study text: asked for in rounds, until there is enough of every kind or nothing new comes.

The one rule: what is asked next follows from the plan, the document and the texts about it so far; for links, also from
the other documents. So a study that was stopped, and finds its texts in the store, goes on as if it had not been.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from zlib import crc32

from afterword.corpus import split_sentences
from afterword.data.views import Writer
from afterword.method_options import StudyKind
from afterword.progress import Progress
from afterword.study.asks import Ask, asks_of, links_of, names_asked, names_of, strategies_applied, strategies_asked
from afterword.study.cleaning import cleaned
from afterword.study.overlap import Shelf
from afterword.study.plan import KindCounts, Part, Piece, StudyPlan, StudyText, titled
from afterword.types import Document, Request, Sampling, Written

_FRUITLESS = 6
"""Texts in a row that bring nothing new, after which no more of a kind is asked about a document."""
_A_ROUND = 8
"""Most requests of a kind about one document at once: what comes back says how many more are needed."""
_STEP = 128
"""Tokens: a text may have half as many again as its document, rounded up to this."""
_ASKED_TOKENS = 300
"""Of a prompt without its documents, about."""
_PROPOSED_TOKENS = 200
"""Most tokens of a list of names or strategies."""


@dataclass(slots=True)
class _Heap:
    """What is written of one kind about one part of a document."""

    part: Part
    kind: StudyKind
    asks: Sequence[Ask]
    wanted: float
    """Tokens."""
    asked: int = 0
    tokens: int = 0
    fruitless: int = 0
    kept: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    """Prompt, text, tokens."""

    def lacking(self) -> int:
        """How many more to ask for, by the length of those that are there. At least one is wanted."""
        if not self.asks or self.fruitless >= _FRUITLESS:
            return 0
        usual = self.tokens / len(self.kept) if self.kept else _guess(self.part)
        return min(_A_ROUND, max(round((self.wanted - self.tokens) / usual), int(not self.kept)))

    def next_ask(self, plan: StudyPlan) -> tuple[Ask, Request]:
        """Each way of asking in turn, then again with another seed."""
        turn, place = divmod(self.asked, len(self.asks))
        self.asked += 1
        # In steps, because texts of one length at most are written together.
        most = _STEP * -(-(64 + 3 * self.part.tokens // 2) // _STEP)
        found, about = self.asks[place], f"{self.part.document.id}, {self.asks[place].prompt}"
        sampling = replace(plan.sampling, max_new_tokens=min(plan.sampling.max_new_tokens, most))
        return found, Request(turns=found.turns, sampling=sampling, seed=plan.seed + turn, about=about)


def study_text(writer: Writer, documents: Iterable[Document], plan: StudyPlan) -> StudyText:
    """All texts of a plan, for documents in the order in which they are to be told of."""
    given, plan = list(documents), replace(plan, part_tokens=_part_tokens(writer, plan))
    parts = [part for document in given for part in parts_of(document, writer, plan)]
    heaps = _heaps(writer, parts, plan)
    counts: dict[StudyKind, KindCounts] = {kind: KindCounts() for kind in plan.amounts}
    shelves = {id(document): Shelf() for document in given}
    wanted = sum(heap.wanted for heap in heaps)
    about = f"about {_requests(parts, plan):,} requests, {round(wanted):,} tokens wanted"
    with Progress("study text", round(wanted), unit="tokens", cost=about) as progress:
        while asked := [heap for heap in heaps for _ in range(heap.lacking())]:
            asks = [heap.next_ask(plan) for heap in asked]
            written = writer.write([request for _, request in asks], "texts about the documents")
            before = _reached(heaps)
            for heap, (found, _), text in zip(asked, asks, written, strict=True):
                _take(heap, found, text, shelves[id(heap.part.document)], counts[heap.kind], writer, plan)
            progress.advance(round(_reached(heaps)) - round(before))
    tokens = sum(part.tokens for part in parts)
    return StudyText(pieces=tuple(_pieces(heaps)), counts=counts, documents=len(given), document_tokens=tokens)


def _part_tokens(writer: Writer, plan: StudyPlan) -> int:
    """Most tokens of a part: of two of them, what is asked and what is written fit what the tokenizer says is read."""
    context = writer.tokenizer.model_max_length
    return max(32, min(plan.part_tokens, (context - _ASKED_TOKENS - 64 - _STEP) * 2 // 7))


def _requests(parts: Sequence[Part], plan: StudyPlan) -> int:
    """About how many requests a plan takes: a text is taken to be as long as its document, up to 200 tokens."""
    each = (round(amount * part.tokens / _guess(part)) for part in parts for amount in plan.amounts.values())
    return sum(max(1, number) for number in each)


def parts_of(document: Document, writer: Writer, plan: StudyPlan) -> list[Part]:
    """The document, or its pieces where it is longer than the plan's parts: whole sentences, as many as fit."""
    text, starts = document.text, [0]
    if _tokens(writer, text) > plan.part_tokens:
        spans = [piece for span in split_sentences(text, plan.language) for piece in _cut(writer, text, span, plan)]
        for start, end in spans:
            if start > starts[-1] and _tokens(writer, text[starts[-1] : end]) > plan.part_tokens:
                starts.append(start)
    texts = (text[start:end].strip() for start, end in pairwise([*starts, len(text)]))
    return [Part(document, each, _tokens(writer, each)) for each in texts if each]


def _cut(writer: Writer, text: str, span: tuple[int, int], plan: StudyPlan) -> Iterator[tuple[int, int]]:
    """A sentence; one that is longer than a part, as a table can be, in pieces of as many characters."""
    start, end = span
    pieces = -(-_tokens(writer, text[start:end]) // plan.part_tokens)
    step = -(-(end - start) // max(1, pieces))
    return ((place, min(place + step, end)) for place in range(start, end, step))


def _heaps(writer: Writer, parts: Sequence[Part], plan: StudyPlan) -> list[_Heap]:
    """A heap for every part and kind, with what is asked for it; what that takes is asked first."""
    listed = _listed(writer, [names_asked(part) for part in parts], plan, "names") if "links" in plan.amounts else []
    names = {number: names_of(part, text) for number, (part, text) in enumerate(zip(parts, listed, strict=False))}
    ways = list[str]()
    if "strategies" in plan.amounts:
        ways = _listed(writer, [strategies_asked(part) for part in parts], plan, "ways of studying")
    heaps = list[_Heap]()
    for number, part in enumerate(parts):
        for kind, amount in plan.amounts.items():
            if kind == "links":
                asks = links_of(part, names, parts, number, plan.seed)
            elif kind == "strategies":
                asks = strategies_applied(part, ways[number])
            else:
                # By the document alone: what is written about it is then the same beside whatever others.
                asks = asks_of(kind, part, crc32(part.shown.encode()))
            heaps.append(_Heap(part, kind, asks, amount * part.tokens))
    return heaps


def _listed(writer: Writer, asks: Sequence[Ask], plan: StudyPlan, what: str) -> list[str]:
    """Lists that the texts are made from: the likeliest one, as it is no text to be trained."""
    sampling = Sampling(max_new_tokens=min(_PROPOSED_TOKENS, plan.sampling.max_new_tokens), temperature=0.0)
    requests = [Request(turns=each.turns, sampling=sampling, seed=plan.seed, about=each.prompt) for each in asks]
    return [written.text for written in writer.write(requests, what)]


def _take(
    heap: _Heap, asked: Ask, written: Written, shelf: Shelf, count: KindCounts, writer: Writer, plan: StudyPlan
) -> None:
    """Put a text on its heap, or count why it is dropped."""
    count.requests += 1
    ready = cleaned(
        written, asked.read, questions=heap.kind == "questions", language=plan.language, grounded=plan.grounded
    )
    if reason := ready.dropped or shelf.refuses(ready.text):
        count.drop(reason)
        heap.fruitless += 1
        return
    shelf.add(ready.text)
    text = titled(heap.part.document, ready.text)
    tokens = _tokens(writer, text)
    heap.kept.append((asked.prompt, text, tokens))
    heap.tokens, heap.fruitless = heap.tokens + tokens, 0
    count.pieces, count.tokens, count.shortened = (
        count.pieces + 1,
        count.tokens + tokens,
        count.shortened + ready.shortened,
    )


def _reached(heaps: Sequence[_Heap]) -> float:
    """Tokens of what is wanted that are there."""
    return sum(min(heap.tokens, heap.wanted) for heap in heaps)


def _guess(part: Part) -> int:
    return max(1, min(part.tokens, 200))


def _pieces(heaps: Sequence[_Heap]) -> Iterator[Piece]:
    numbers = dict[tuple[int, StudyKind], int]()
    for heap in heaps:
        for prompt, text, tokens in heap.kept:
            place = (id(heap.part.document), heap.kind)
            numbers[place] = numbers.get(place, 0) + 1
            yield Piece(heap.part, heap.kind, numbers[place], prompt, text, tokens)


def _tokens(writer: Writer, text: str) -> int:
    return len(writer.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
