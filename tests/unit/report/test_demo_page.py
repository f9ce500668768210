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


def _figure(
    before: float, after: float, half: float = 0.1, n: int = 72, label: str = "Told", part: str = "learning"
) -> Any:
    sides = {"before": _estimate(before), "after": _estimate(after), "change": _estimate(after - before, half)}
    return {"label": label, "part": part, "n": n, "units": n // 2, **sides}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A demo's folder."""
    figures = {"learned": _figure(0.25, 0.7, label="What it learned"), "ceiling": _estimate(0.85, 0.05)}
    figures |= {"kept": _figure(0.8, 0.75, n=30, label="What it lost", part="retention")}
    skills = [_figure(0.3, 0.7), _figure(0.2, 0.6, label="In other words"), _figure(0, 0.4, label="Said")]
    skills += [_figure(0.9, 0.9, label="Facts", part="retention")]
    figures |= {"skills": [*skills, _figure(0.5, 0.4, label=HOSTILE, part="retention")]}
    answers = [
        {"id": name, "part": "learning", "skill": "told", "question": f"{name}? {HOSTILE}", "expected": [HOSTILE]}
        | {"before": f"before {HOSTILE}", "after": "", "before_correct": right[0], "after_correct": right[1]}
        | {"options": ["a", HOSTILE], "documents": [3]}
        for name, right in ANSWERS.items()
    ]
    document = {"number": 3, "title": f"T {HOSTILE}", "source": f"S {HOSTILE}"}
    document |= {"paragraphs": [f"First {HOSTILE}", "Second."]}
    words = {name: f"{name} {HOSTILE}" for name in ("story", "closing")}
    drift = {"task": "drift/general", "metric": "kl_nats", "n": 40, "details": {}, "better": "lower"}
    drift |= {"before": None, "after": _estimate(0.25), "change": None}
    about = {"format": 1, "world": "ferry", "model": f"models/{HOSTILE}", "parameters": 134_515_008, "seconds": 201.0}
    about |= {"created": "2026-05-04T12:00:00+00:00", "label": "Fine-tuning", "commands": [f"afterword {HOSTILE}"]}
    about |= {"settings": {"learning_rate": 1e-4}, "steps": 60, "training_seconds": 90.0, "figures": figures}
    about |= {"answers": answers, "documents": [document], "taught": 192, **words, "drift": [drift]}
    about |= {"budget": {}}
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
    for part in ("before", "learned?", "T", "S", "First", "afterword", "story", "closing"):
        assert f"{part} {HOSTILE}" in text, part
    assert "(no answer)" in text


def test_the_two_bars_are_drawn_where_the_numbers_are(demo: Path) -> None:
    learned, kept = build_demo(demo)["bars"]
    assert [mark["name"] for mark in learned["marks"]] == ["before", "after", "ceiling"]
    assert [mark["name"] for mark in kept["marks"]] == ["before", "after"]
    assert (learned["moved"]["low"], learned["moved"]["width"], learned["fell"]) == ("25.00%", "45.00%", False)
    assert (kept["moved"]["low"], kept["moved"]["width"], kept["fell"]) == ("75.00%", "5.00%", True)
    after = learned["marks"][1]
    assert (after["at"], after["low"], after["width"]) == ("70.00%", "60.00%", "20.00%")
    assert (after["mean"], after["interval"], learned["change"]["mean"]) == ("70 %", "[60, 80]", "+45 points")
    text = " ".join(_read(write_demo(demo).read_text()).text)
    assert "72 questions about 36 facts of the documents, a choice of four each." in text
    assert "With the document to read" in text


def test_without_a_ceiling_nothing_is_drawn_of_it(demo: Path) -> None:
    record = json.loads((demo / "demo.json").read_text())
    record["figures"]["ceiling"] = None
    (demo / "demo.json").write_text(json.dumps(record))
    assert "With the document to read" not in write_demo(demo).read_text()
    assert build_demo(demo)["verdict"].startswith("The model learned (25 % → 70 % of the questions right)")


def test_skills_and_drift_are_rows_of_the_table_with_n_and_interval(demo: Path) -> None:
    page = build_demo(demo)
    assert {part: [row["label"] for row in rows] for part, rows in page["parts"].items()} == {
        "learning": ["Told", "In other words", "Said"],
        "retention": ["Facts", HOSTILE],
    }
    text = re.sub(r"\s+", " ", " ".join(_read(write_demo(demo).read_text()).text))
    assert "In other words 72 20 % 60 % +40 points [30, 50]" in text
    assert re.search(r"Text that was not taught Drift from the base model [^0-9]+0[^0-9]+ 40 – 0\.250 –", text)


def test_where_there_is_no_interval_there_is_a_dash(demo: Path) -> None:
    record = json.loads((demo / "demo.json").read_text())
    for figure in record["figures"]["skills"]:
        figure["change"]["interval_95"] = None
    (demo / "demo.json").write_text(json.dumps(record))
    html = write_demo(demo).read_text()
    assert html.count('points <span class="interval">–</span>') == len(record["figures"]["skills"])
    assert "nan" not in html


def test_a_question_without_a_choice_has_no_options_and_documents_that_are_not_shown_are_counted(demo: Path) -> None:
    record = json.loads((demo / "demo.json").read_text())
    record["answers"][0] |= {"options": [], "documents": []}
    (demo / "demo.json").write_text(json.dumps(record))
    text = re.sub(r"\s+", " ", " ".join(_read(write_demo(demo).read_text()).text))
    assert text.count("(the choice:") == text.count("; told in 3") == len(ANSWERS) - 1
    assert "1 of the 192 that the model was given: those that tell the answers." in text


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
    figures: Any = {"learned": _figure(*learned), "kept": _figure(*kept), "ceiling": _estimate(0.85), "skills": []}
    assert re.search(said, verdict(figures))


def test_the_same_folder_gives_the_same_bytes(demo: Path) -> None:
    assert write_demo(demo).read_bytes() == write_demo(demo).read_bytes()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1, "status": "running"}'])
def test_what_is_no_demo_is_said(demo: Path, text: str | None) -> None:
    (demo / "demo.json").write_text(text) if text is not None else (demo / "demo.json").unlink()
    with pytest.raises(CheckpointError, match=r"demo\.json: .*Run `afterword demo` again"):
        write_demo(demo)
