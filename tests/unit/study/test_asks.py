"""What is asked about documents: every prompt can be filled, and links name what stands there."""

from __future__ import annotations

from importlib.resources import files

import pytest

from afterword.method_options import KINDS
from afterword.study.asks import (
    asks_of,
    lines_of,
    links_of,
    names_asked,
    names_of,
    prompts_of,
    strategies_applied,
    strategies_asked,
)
from afterword.study.plan import Part
from afterword.types import Document

SIMPLE = [kind for kind in KINDS if kind not in ("links", "strategies")]


def part(text: str, name: str = "one", title: str | None = None) -> Part:
    document = Document(name, text, title=title)
    return Part(document, text, len(text.split()))


def test_every_file_of_prompts_belongs_to_a_kind() -> None:
    folder = files("afterword.writing") / "prompts" / "study"
    there = {f"study/{file.name.removesuffix('.txt')}" for file in folder.iterdir()}
    assert there == set(prompts_of(KINDS))


@pytest.mark.parametrize("kind", SIMPLE)
def test_the_ways_of_a_kind_come_in_turn(kind: str) -> None:
    first, second = (asks_of(kind, part("Mara {Lind}."), start) for start in (0, 1))
    assert sorted(ask.prompt for ask in first) == sorted(ask.prompt for ask in second)
    assert [ask.prompt for ask in second] == [*[ask.prompt for ask in first][1:], first[0].prompt]
    assert all("Mara {Lind}." in ask.read and ask.prompt.endswith("@2") for ask in first)


def test_prompts_about_a_document_begin_alike_so_that_it_is_read_once() -> None:
    here = part("Mara Lind.", title="On Mara")
    texts = [ask.read for kind in SIMPLE for ask in asks_of(kind, here)]
    texts += [ask.read for ask in (names_asked(here), strategies_asked(here))]
    assert len({text.partition("Mara Lind.")[0] for text in texts}) == 1
    assert "On Mara" in texts[0].partition("Mara Lind.")[0]


def test_names_are_those_that_stand_in_the_document() -> None:
    here = part("Mara Lind sold her bakery in Oslo to Per Holm, who came from the town of Farsund.")
    listed = "1. **Mara Lind**\n2. Oslo (a city)\n- Per Holm: a baker\n* Bergen\n3. Mara Lind\n"
    assert names_of(here, listed) == ["Mara Lind", "Oslo", "Per Holm"]


def test_where_the_model_lists_none_capital_letters_say_what_names_are() -> None:
    here = part("The baker Mara Lind sold her bakery in Oslo to Per Holm. He pays later.")
    assert names_of(here, "The text is about a bakery that was sold.") == ["Mara Lind", "Oslo", "Per Holm"]


def test_links_are_of_two_of_three_and_across() -> None:
    parts = [part("Mara Lind, Oslo, Per Holm."), part("Mara Lind, Bergen.", "two"), part("Farsund.", "three")]
    names = {0: ["Mara Lind", "Oslo", "Per Holm"], 1: ["Mara Lind", "Bergen"], 2: ["Farsund"]}
    links = links_of(parts[0], names, parts, 0, 0)
    assert [ask.prompt.split("/")[1] for ask in links[:3]] == ["links_two@2", "links_across@2", "links_three@2"]
    assert len(links) == 3 + 1 + 1
    assert "Bergen" in links[1].read
    assert "Mara Lind" in links[1].read
    assert links == links_of(parts[0], names, parts, 0, 0)
    assert sorted(map(str, links)) == sorted(map(str, links_of(parts[0], names, parts, 0, 1)))
    assert links_of(parts[2], names, parts, 2, 0) == []


def test_parts_of_one_document_are_not_linked_across() -> None:
    document = Document("one", "Mara Lind. Mara Lind.")
    parts = [Part(document, "Mara Lind.", 2)] * 2
    assert links_of(parts[0], {0: ["Mara Lind"], 1: ["Mara Lind"]}, parts, 0, 0) == []


def test_strategies_are_the_lines_that_the_model_proposes() -> None:
    asks = strategies_applied(part("Mara Lind."), "1. Make a table of the dates.\n2) Tell it to a friend.\n\nOK\n")
    assert [ask.read.split("\n\n")[-1].split(" Write")[0] for ask in asks] == [
        "Make a table of the dates.",
        "Tell it to a friend.",
    ]


def test_lines_of_lists() -> None:
    assert lines_of("1. one\n- two\n\n* **three**\n 4) four") == ["one", "two", "three", "four"]
