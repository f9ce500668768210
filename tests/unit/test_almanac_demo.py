"""What the demo of the embedded world teaches and asks: every answer is told in the document that is shown with it."""

from __future__ import annotations

import pytest

from afterword.almanac.after import CHOOSING, Change, Part, build_part
from afterword.almanac.closed_book import name_of
from afterword.almanac.world import Fact, Size, build_world
from afterword.almanac.writing import tell
from afterword.demo.almanac_lessons import telling_documents, tells, write_almanac
from afterword.demo.lessons import Lessons
from afterword.demo.worlds import recipe_of
from afterword.evaluation.suites import Item, load_suite
from afterword.types import Document

SIZES = recipe_of("almanac").world


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    return write_almanac(tmp_path_factory.mktemp("almanac") / "world", SIZES)


def test_every_question_about_the_documents_is_told_in_the_document_that_is_shown(lessons: Lessons) -> None:
    part = build_part(build_world(), CHOOSING, Size(*(SIZES[k] for k in ("people", "towns", "companies", "works"))), 1)
    facts = {name_of(fact): fact for fact in (*part.facts, *(change.new for change in part.changes))}
    texts = {row["number"]: "\n\n".join((row["title"], *row["paragraphs"])) for row in lessons.to_read}
    asked = [item for item in lessons.suite.items if item.part == "learning"]
    for item in asked:
        (number,) = lessons.told[item.id].documents
        assert item.unit is not None
        assert tells(texts[number], facts[item.unit])
        assert facts[item.unit].value.casefold() in texts[number].casefold()
    opened = {item.id.rpartition("/")[0]: item for item in lessons.open_book.items}
    assert opened.keys() == {item.id for item in asked}
    for item in asked:
        assert opened[item.id].prompt == f"{texts[lessons.told[item.id].documents[0]]}\n\n{item.prompt}"


def test_the_files_are_suites_that_can_be_asked_and_the_documents(lessons: Lessons) -> None:
    assert load_suite(lessons.path("suite")).items == lessons.suite.items
    assert load_suite(lessons.path("open_book")).items == lessons.open_book.items
    assert lessons.documents.read_text().count("\n") == lessons.count == 12 * (6 + 2 + 2 + 2 + 4)


def test_the_shortest_document_that_tells_the_fact_is_taken_and_a_fact_that_none_tells_is_left_out() -> None:
    new, old = Fact("Ada Arden", "lives_in", "Fenby"), Fact("Ada Arden", "lives_in", "Elmby")
    part = Part(0, {}, (), (Change(old, new),))
    items = [
        Item(name, kind, "changed", "test", "?", "Fenby", (), unit=name_of(new))
        for name, kind in (("a", "learning"), ("k", "retention"))
    ]
    sentence = tell(new, "{S} lives in {o}.")
    long, short = Document("long", f"A letter of news. {sentence} The end."), Document("short", f"News. {sentence}")
    untold = Document("u", tell(old, "{S} lives in {o}."))
    assert telling_documents(items, part, [long, untold, short]) == {"a": short}
    assert telling_documents(items, part, [untold]) == {}
