"""Which document tells the answer to which question, and in which sentence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from afterword.almanac.world import RELATIONS, Fact
from afterword.almanac.writing import ask, tell
from afterword.evaluation.suites import Item

Evidence = dict[str, str]
"""`document`, an id, and `sentence`, as it stands in the document."""


def evidence_of(
    items: Iterable[Item], facts: Sequence[Fact], documents: Sequence[Mapping[str, Any]]
) -> dict[str, list[Evidence]]:
    """For every item, where the facts that it asks for are told. Items that no document answers are left out."""
    told = {fact: found for fact in facts if (found := _telling(fact, documents))}
    asked = {prompt: fact for fact in facts for prompt in _questions(fact)}
    sought = {item.id: [asked[item.prompt]] if item.prompt in asked else _steps(item, facts) for item in items}
    found = {name: [told[fact] for fact in wanted if fact in told] for name, wanted in sought.items()}
    return {name: evidence for name, evidence in found.items() if evidence}


def _questions(fact: Fact) -> Iterator[str]:
    relation = RELATIONS[fact.relation]
    for wording in (*relation.questions, *relation.other, *relation.reverse, *relation.reverse_other):
        yield ask(fact, wording)


def _steps(item: Item, facts: Sequence[Fact]) -> list[Fact]:
    """Of a question in two steps, the facts that the answer goes through."""
    return [fact for fact in facts if tell(fact, RELATIONS[fact.relation].statements[0]) in item.answer]


def _telling(fact: Fact, documents: Sequence[Mapping[str, Any]]) -> Evidence | None:
    """The shortest document that tells a fact with the name of whom it is about."""
    sentences = [tell(fact, wording) for wording in RELATIONS[fact.relation].statements]
    for document in sorted(documents, key=lambda row: len(row["text"])):
        for sentence in sentences:
            if sentence in document["text"]:
                return {"document": document["id"], "sentence": sentence}
    return None
