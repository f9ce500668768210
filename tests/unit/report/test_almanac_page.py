"""The demo's page from a folder made by hand: what it says, what it escapes, and where a question belongs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import CheckpointError
from afterword.report.almanac_page import build_almanac, outcome, write_almanac

HOSTILE = "<script>alert('x')</script> & <b>"
# Right before, right after the first and the second run, by the name of the question.
ANSWERS = {
    "learned": (False, True, True),
    "learned-once": (False, False, True),
    "forgotten": (True, True, False),
    "wrong": (False, False, False),
    "kept": (True, True, True),
}


def _estimate(value: float, half: float = 0.02) -> dict[str, Any]:
    return {"value": value, "interval_95": [value - half, value + half]}


def _score(task: str, n: int, before: float, after: float) -> dict[str, Any]:
    values = {"before": _estimate(before), "after": _estimate(after), "change": _estimate(after - before)}
    named = {"task": task, "metric": "correct_frac", "version": 1, "n": n, "seeds": 1, "better": "higher"}
    return {**named, **values, "details": {}}


def _scores(run: int) -> dict[str, Any]:
    answers = [
        {"setting": "suite", "id": name, "part": "learning", "skill": "direct", "question": f"{name}? {HOSTILE}"}
        | {"expected": [HOSTILE], "before": f"before {HOSTILE}", "after": f"after {HOSTILE}"}
        | {"before_correct": right[0], "after_correct": right[run], "after_unrefused": f"unrefused {HOSTILE}"}
        for name, right in ANSWERS.items()
    ]
    scores = [_score("test/learning/direct", 95, 0.0, 0.6), _score("test/retention/few", 9, 0.9, 0.1)]
    lost = _score("test/retention/<i>", 40, 0.9, 0.5)
    return {"format": 1, "scores": [*scores, lost], "answers": answers, "samples": [], "notes": []}


@pytest.fixture
def demo(tmp_path: Path, run: Path) -> Path:
    """A demo's folder with two runs."""
    folder = tmp_path / "demo"
    for i, name in enumerate(("first", "second"), start=1):
        shutil.copytree(run, folder / name)
        (folder / name / "scores.json").write_text(json.dumps(_scores(i)))
    (folder / "world").mkdir()
    document = {"id": "d1", "title": HOSTILE, "date": "1 May 1930", "text": f"{HOSTILE} Told & true. The <end>."}
    (folder / "world" / "documents.jsonl").write_text(json.dumps(document) + "\n")
    runs = [
        {"name": name, "label": label, "settings": ["learning_rate"], "commands": [f"afterword adapt {HOSTILE}"]}
        for name, label in (("first", "Gentle"), ("second", f"Rough {HOSTILE}"))
    ]
    totals = {
        part: [{"label": "All", "scores": {run["name"]: _score("all", n, *values) for run in runs}}]
        for part, n, values in (("learning", 95, (0.0, 0.6)), ("retention", 400, (0.9, 0.5)))
    }
    about = {"format": 1, "model": f"models/{HOSTILE}", "parameters": 2_164_416, "seconds": 61.0, "runs": runs}
    about |= {"created": "2026-05-04T12:00:00+00:00", "command": "afterword evaluate", "totals": totals}
    about |= {"counts": {"documents.jsonl": 96}, "documents": "d.jsonl", "suite": "s.jsonl"}
    about |= {"world": {"people": 6, "towns": 2, "companies": 2, "works": 2}}
    about |= {"skills": {"learning": {"direct": "New facts"}, "retention": {"few": "Few"}}}
    about |= {"evidence": {"learned": [{"document": "d1", "sentence": "Told & true."}]}}
    (folder / "demo.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A recorded comparison of one arm."""
    values = {"learning": _estimate(0.5), "retention": _estimate(0.8)}
    point = {"learning_rate": 1e-5, "seeds": 2, "interval_over": "seeds", "dominated": False, **values}
    arm = {"name": "gentle", "settings": {}, "points": [point], "hypervolume": None, "pick": {"reason": "none"}}
    base = {part: {**_estimate(0.1), "n": 120, "skills": {}} for part in ("learning", "retention")}
    settings = {"model_name_or_path": "m", "suite": "s", "reference_point": [0, 0], "max_loss_points": 5}
    data = {"format": 1, "created": "2026-04-01T12:00:00+00:00", "command": "afterword compare", "settings": settings}
    data |= {"split": "test", "splits": ["test"], "base": {"test": base}, "base_hypervolume": None, "arms": [arm]}
    data |= {"cells": [], "finished": 2, "environments": [{"device": "Some GPU", "cpu_count": 3}], "notes": []}
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "compare.json").write_text(json.dumps(data))
    return tmp_path / "study"


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

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

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


def test_the_page_is_well_formed_escaped_and_needs_nothing_from_outside(demo: Path, study: Path) -> None:
    html = write_almanac(demo, study).read_text()
    page = _read(html)
    assert (page.wrong, page.open) == ([], [])
    assert not page.tags & {"script", "img", "link", "i"}
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    text = " ".join(page.text)
    for part in ("before", "after", "unrefused", "adapt", "Rough"):
        assert f"{part} {HOSTILE}" in text


def test_the_sentence_that_tells_the_answer_is_marked_in_its_document(demo: Path, study: Path) -> None:
    html = write_almanac(demo, study).read_text()
    assert "&lt;b&gt; <mark>Told &amp; true.</mark> The &lt;end&gt;." in html
    assert html.count("<mark>") == 1


def test_every_question_is_in_one_group_and_every_run_is_counted_by_its_own_answers(demo: Path, study: Path) -> None:
    groups = {group["name"]: group for group in build_almanac(demo, study)["groups"]}
    found = {name: [question["id"] for question in group["questions"]] for name, group in groups.items()}
    assert found == {
        "learned": ["learned", "learned-once"],
        "forgotten": ["forgotten"],
        "still wrong": ["wrong"],
        "kept": ["kept"],
    }
    counts = {name: group["counts"] for name, group in groups.items()}
    assert counts == {"learned": [1, 2], "forgotten": [0, 1], "still wrong": [2, 1], "kept": [2, 1]}


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((False, False, False), "still wrong"),
        ((False, True, False), "learned"),
        ((True, True, True), "kept"),
        ((True, True, False), "forgotten"),
        ((True, False), "forgotten"),
    ],
)
def test_what_became_of_a_question(sides: tuple[bool, ...], expected: str) -> None:
    assert outcome([{"right": right} for right in sides]) == expected


def test_conclusions_stand_with_n_and_interval(demo: Path, study: Path) -> None:
    text = re.sub(r"\s+", " ", "".join(_read(write_almanac(demo, study).read_text()).text))
    assert "the model answers 57 of 95 questions about what is new, 60.0% [58.0, 62.0]; before, it answered 0" in text
    assert "Of 400 questions about what it could do before, it answers 200 instead of 360" in text
    assert "−40.0 points [−42.0, −38.0]" in text
    assert text.count("95 % interval [") == 4
    assert text.count("n = 95") == 2


def test_of_few_questions_nothing_is_said(demo: Path, study: Path) -> None:
    learned, lost = build_almanac(demo, study)["tables"]
    assert [row["label"] for row in lost["rows"]] == ["Few", "<i>"]
    assert [row["runs"][0]["reading"].tone for row in lost["rows"]] == ["none", "worse"]
    assert learned["rows"][0]["runs"][0]["reading"].tone == "better"


def test_places_of_the_drawing_are_those_of_the_numbers(demo: Path, study: Path) -> None:
    side = build_almanac(demo, study)["tables"][0]["rows"][0]["runs"][0]
    assert (side["at"], side["low"], side["width"], side["right"]) == ("60.00%", "58.00%", "4.00%", 57)


def test_the_frontier_says_that_it_is_recorded_where_and_when(demo: Path, study: Path) -> None:
    text = re.sub(r"\s+", " ", " ".join(_read(write_almanac(demo, study).read_text()).text))
    assert "Not from this run" in text
    assert "Recorded 2026-04-01 on Some GPU (3 cores)" in text
    assert "120 of learning" in text


def test_the_recorded_intervals_are_said_to_be_what_they_are(demo: Path, study: Path) -> None:
    def text() -> str:
        return re.sub(r"\s+", " ", " ".join(_read(write_almanac(demo, study).read_text()).text))

    assert "95 % intervals over the questions, those about the same fact taken together; what the" in text()
    assert "Lines through a point, and brackets, are 95 % intervals over its seeds; lines through the base" in text()
    recorded = json.loads((study / "compare.json").read_text())
    recorded["arms"][0]["points"].append({**recorded["arms"][0]["points"][0], "interval_over": "items", "seeds": 1})
    (study / "compare.json").write_text(json.dumps(recorded))
    assert "over its seeds where it has two or more, otherwise over the questions; lines" in text()


def test_every_command_of_the_recording_is_printed_with_its_recipe(demo: Path, study: Path) -> None:
    assert "The command that recorded it:" in write_almanac(demo, study).read_text()
    recipe = (
        "# Why.\n#\n#   afterword almanac here --part 1\n#   afterword compare --config recipes/r.yaml\nseeds: [<0>]\n"
    )
    (study / "r.yaml").write_text(recipe)
    html = write_almanac(demo, study).read_text()
    assert "<span>afterword almanac here --part 1</span><span>afterword compare --config recipes/r.yaml</span>" in html
    assert "<summary>recipes/r.yaml</summary>" in html
    assert "seeds: [&lt;0&gt;]" in html


def test_where_there_is_no_interval_there_is_a_dash(demo: Path, study: Path) -> None:
    for name in ("first", "second"):
        scores = json.loads((demo / name / "scores.json").read_text())
        for side in ("before", "after", "change"):
            scores["scores"][1][side]["interval_95"] = None
        (demo / name / "scores.json").write_text(json.dumps(scores))
    html = write_almanac(demo, study).read_text()
    assert html.count('<span class="range">–</span>') == 3
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)


def test_without_a_study_nothing_is_drawn_and_the_command_is_given(demo: Path, tmp_path: Path) -> None:
    html = write_almanac(demo, tmp_path / "nothing").read_text()
    assert "<svg" not in html
    assert "No comparison is recorded yet." in html
    assert 'class="recorded"' not in html
    assert "afterword compare" in html


def test_the_same_folder_gives_the_same_bytes(demo: Path, study: Path) -> None:
    assert write_almanac(demo, study).read_bytes() == write_almanac(demo, study).read_bytes()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1, "status": "running"}'])
def test_what_is_no_demo_is_said(demo: Path, study: Path, text: str | None) -> None:
    (demo / "demo.json").write_text(text) if text is not None else (demo / "demo.json").unlink()
    with pytest.raises(CheckpointError, match=r"demo\.json: .*Run `afterword demo` again"):
        write_almanac(demo, study)
