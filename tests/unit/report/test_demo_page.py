"""The page of the real model's demo from a record made by hand: what it says, what it escapes, where things belong."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import CheckpointError
from afterword.report.demo_page import build_demo, verdict, write_demo

HOSTILE = "<script>alert('x')</script> & <b>"
# Right before and after, by the name of the answer.
ANSWERS = {"learned": (False, True), "wrong": (False, False), "kept": (True, True), "lost": (True, False)}


def _estimate(value: float, half: float | None = 0.1) -> dict[str, Any]:
    return {"value": value, "interval_95": None if half is None else [value - half, value + half]}


def _figure(before: float, after: float, half: float = 0.1, n: int = 72, **more: Any) -> dict[str, Any]:
    sides = {"before": _estimate(before), "after": _estimate(after), "change": _estimate(after - before, half)}
    return {"n": n, "units": n // 2, **sides, **more}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A demo's folder."""
    learned = _figure(0.25, 0.7, ceiling=_estimate(0.85, 0.05))
    figures = {"learned": learned, "told": _figure(0.3, 0.7), "otherwise": _figure(0.2, 0.6), "said": _figure(0, 0.4)}
    figures |= {"kept": _figure(0.8, 0.75, n=30), "skills": {"facts": _figure(0.9, 0.9), HOSTILE: _figure(0.5, 0.4)}}
    answers = [
        {"id": name, "part": "learning", "skill": "told", "question": f"{name}? {HOSTILE}", "expected": [HOSTILE]}
        | {"before": f"before {HOSTILE}", "after": "", "before_correct": right[0], "after_correct": right[1]}
        | {"options": ["a", HOSTILE], "documents": [3]}
        for name, right in ANSWERS.items()
    ]
    document = {"number": 3, "file": "3.md", "title": f"T {HOSTILE}", "source": f"S {HOSTILE}"}
    document |= {"text": f"# T\n\nS\n\nFirst {HOSTILE}\n\nSecond."}
    about = {"format": 1, "world": "ferry", "model": f"models/{HOSTILE}", "parameters": 134_515_008, "seconds": 201.0}
    about |= {"created": "2026-05-04T12:00:00+00:00", "label": "Fine-tuning", "commands": [f"afterword {HOSTILE}"]}
    about |= {"settings": {"learning_rate": 1e-4}, "steps": 60, "training_seconds": 90.0, "figures": figures}
    about |= {"answers": answers, "documents": [document], "counts": {"documents": 15}}
    (tmp_path / "demo.json").write_text(json.dumps(about))
    return tmp_path


class _Checked(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.wrong += [name for name, _ in attrs if name.startswith("on")]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(html: str) -> _Checked:
    page = _Checked()
    page.feed(html)
    page.close()
    return page


def test_the_page_is_well_formed_escaped_and_needs_nothing_from_outside(demo: Path) -> None:
    html = write_demo(demo).read_text()
    page = _read(html)
    assert (page.wrong, page.open) == ([], [])
    assert not page.tags & {"script", "img", "link"}
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    text = " ".join(page.text)
    for part in ("before", "learned?", "T", "S", "First", "afterword"):
        assert f"{part} {HOSTILE}" in text, part
    assert "(no answer)" in text


def test_the_two_bars_are_drawn_where_the_numbers_are(demo: Path) -> None:
    learned, kept = build_demo(demo)["bars"]
    assert [mark["name"] for mark in learned["marks"]] == ["before", "after", "ceiling"]
    assert [mark["name"] for mark in kept["marks"]] == ["before", "after"]
    assert (learned["moved"]["low"], learned["moved"]["width"], learned["fell"]) == ("25.00%", "45.00%", False)
    assert (kept["moved"]["low"], kept["moved"]["width"], kept["fell"]) == ("75.00%", "5.00%", True)
    after = learned["by_name"]["after"]
    assert (after["at"], after["low"], after["width"]) == ("70.00%", "60.00%", "20.00%")
    assert (after["mean"], after["interval"], learned["change"]["mean"]) == ("70 %", "[60, 80]", "+45 points")
    text = " ".join(_read(write_demo(demo).read_text()).text)
    assert "72 questions about 36 facts of the documents, a choice of four each." in text
    assert "With the document to read" in text


def test_without_a_ceiling_nothing_is_drawn_of_it(demo: Path) -> None:
    record = json.loads((demo / "demo.json").read_text())
    record["figures"]["learned"]["ceiling"] = None
    (demo / "demo.json").write_text(json.dumps(record))
    assert "With the document to read" not in write_demo(demo).read_text()
    assert build_demo(demo)["verdict"].startswith("The model learned (25 % → 70 % of the questions right)")


def test_every_answer_is_in_the_group_of_what_became_of_it(demo: Path) -> None:
    groups = build_demo(demo)["groups"]
    found = {name: [answer["id"] for answer in group["answers"]] for name, group in groups.items()}
    assert found == {"learned": ["learned"], "still wrong": ["wrong"], "kept": ["kept"], "lost": ["lost"]}


@pytest.mark.parametrize(
    ("learned", "kept", "said"),
    [
        (
            (0.25, 0.7, 0.1),
            (0.8, 0.75, 0.1),
            r"learned 75 % of what reading .* \(25 % → 70 % right, 85 % with .* may have lost 5 points of",
        ),
        (
            (0.25, 0.7, 0.1),
            (0.8, 0.5, 0.1),
            r"learned 75 % .*, and lost 30 points of what it could do before \(80 % → 50 %\)",
        ),
        ((0.25, 0.7, 0.1), (0.5, 0.8, 0.1), r"learned 75 % .*, and does even better at"),
        (
            (0.25, 0.3, 0.1),
            (0.8, 0.8, 0.1),
            r"^Practically nothing was learned \(25 % → 30 % right\), and nothing was lost",
        ),
        ((0.25, 0.3, 0.01), (0.8, 0.8, 0.1), r"^Practically nothing was learned"),
        ((0.25, 0.95, 0.1), (0.8, 0.8, 0.1), r"learned 100 % of what reading"),
        ((0.9, 1.0, 0.05), (0.8, 0.8, 0.1), r"^The model learned \(90 % → 100 % of the questions right\)"),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(learned: Any, kept: Any, said: str) -> None:
    figure = _figure(*learned, ceiling=_estimate(0.85))
    assert re.search(said, verdict(figure, _figure(*kept)))


def test_the_same_folder_gives_the_same_bytes(demo: Path) -> None:
    assert write_demo(demo).read_bytes() == write_demo(demo).read_bytes()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1, "status": "running"}'])
def test_what_is_no_demo_is_said(demo: Path, text: str | None) -> None:
    (demo / "demo.json").write_text(text) if text is not None else (demo / "demo.json").unlink()
    with pytest.raises(CheckpointError, match=r"demo\.json: .*Run `afterword demo` again"):
        write_demo(demo)
