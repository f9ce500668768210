"""The embedded world as a demo teaches it: what happened after its cutoff, and questions that are a choice of four.

The one rule: what is shown beside a question is a document that tells its answer in a whole sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from afterword.almanac.after import CHOOSING, Part, build_part, write_documents
from afterword.almanac.closed_book import name_of
from afterword.almanac.files import document_lines
from afterword.almanac.suite import build_suite
from afterword.almanac.world import RELATIONS, Fact, Size, build_world
from afterword.almanac.writing import tell
from afterword.demo.lessons import OPEN_BOOK, Lessons, Told
from afterword.evaluation.suites import Item
from afterword.report.demo_page import Readable
from afterword.storage.atomic import replace_file
from afterword.types import Document


def write_almanac(folder: Path, sizes: Mapping[str, int]) -> Lessons:
    """Write documents.jsonl, suite.jsonl and open_book.jsonl into a folder that is not there yet.

    `sizes`: new people, towns, companies and works, `changes` of every relation that changes, documents `per_entity`.
    """
    folder.mkdir(parents=True)
    world = build_world()
    arrivals = Size(sizes["people"], sizes["towns"], sizes["companies"], sizes["works"])
    part = build_part(world, CHOOSING, arrivals, sizes["changes"])
    documents, whole = write_documents(world, part, sizes["per_entity"]), build_suite(world, part)
    items = tuple(item for item in whole.items if item.choices or item.part == "retention")
    telling = telling_documents(items, part, documents)
    read = {document.id: document for document in telling.values()}
    numbers = {name: number for number, name in enumerate(read, start=1)}
    opened = tuple(_opened(item, telling[item.id]) for item in items if item.id in telling)
    asked = tuple(replace(item, gone=None) for item in items)
    lessons = Lessons(
        documents=folder / "documents.jsonl",
        count=len(documents),
        # Without refusals: that they are impossible need not be measured where a choice shows what is known.
        suite=replace(whole, items=asked, refusals=()),
        open_book=replace(whole, items=opened, refusals=(), texts=()),
        told={
            # In an order that says nothing of which is right.
            item.id: Told(tuple(sorted((item.answer, *item.choices))), _numbers(item, telling, numbers))
            for item in items
            if item.choices
        },
        to_read=tuple(_readable(numbers[name], document) for name, document in read.items()),
    )
    replace_file(lessons.documents, document_lines(documents))
    lessons.write_suites()
    return lessons


def telling_documents(items: Sequence[Item], part: Part, documents: Sequence[Document]) -> dict[str, Document]:
    """By the id of an item about the part, the shortest document that tells its answer, where there is one."""
    new = {name_of(fact): fact for fact in (*part.facts, *(change.new for change in part.changes))}
    shortest = sorted(documents, key=lambda document: len(document.text))
    told = {name: next((each for each in shortest if tells(each.text, fact)), None) for name, fact in new.items()}
    found = {item.id: told[item.unit] for item in items if item.part == "learning" and item.unit in told}
    return {name: document for name, document in found.items() if document}


def tells(text: str, fact: Fact) -> bool:
    """Whether a text states the fact in a sentence with the name of whom it is about."""
    return any(tell(fact, wording) in text for wording in RELATIONS[fact.relation].statements)


def _opened(item: Item, document: Document) -> Item:
    prompt = f"{document.text}\n\n{item.prompt}"
    return replace(item, id=f"{item.id}/{OPEN_BOOK}", skill=OPEN_BOOK, prompt=prompt, gone=None)


def _numbers(item: Item, telling: Mapping[str, Document], numbers: Mapping[str, int]) -> tuple[int, ...]:
    return (numbers[telling[item.id].id],) if item.id in telling else ()


def _readable(number: int, document: Document) -> Readable:
    title, *paragraphs = document.text.split("\n\n")
    return Readable(number=number, title=title, source=document.date or "", paragraphs=paragraphs)
