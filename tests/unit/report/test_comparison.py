"""The page of a comparison: all arms on it, everything escaped, nothing from outside, the same in light and dark."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import CheckpointError
from afterword.report import comparison as frontier
from afterword.report import write_comparison
from afterword.report.comparison import LOOKS

HOSTILE = "<script>alert('x')</script> $a$ | `b`"
COST = {"epochs": 2.0, "documents": 8, "student_tokens": 12345, "teacher_tokens": 0, "flops": 1.25e12}
COST |= {"train_seconds": 61.0, "evaluate_seconds": 3.0}


def estimate(value: float, half: float | None = 0.05) -> dict[str, Any]:
    return {"value": value, "interval_95": None if half is None else [value - half, value + half]}


def point(rate: float, learning: float, retention: float, dominated: bool = False) -> dict[str, Any]:
    values = {"learning": estimate(learning), "retention": estimate(retention, None if dominated else 0.02)}
    return {"learning_rate": rate, "seeds": 2, "interval_over": "seeds", "dominated": dominated, **values}


def arm(name: str, points: list[dict[str, Any]], pick: dict[str, Any]) -> dict[str, Any]:
    area = {**estimate(0.4321), "seeds": 2} if points else None
    return {"name": name, "settings": {"method": "m"}, "points": points, "hypervolume": area, "pick": pick}


def cell(name: str, status: str, reason: str | None = None) -> dict[str, Any]:
    cost = COST if status == "complete" else None
    return {"arm": name, "learning_rate": 1e-5, "seed": 0, "status": status, "reason": reason, "cost": cost}


def comparison() -> dict[str, Any]:
    chosen = {"learning_rate": 1e-5, "dev": {"learning": 0.3, "losses_points": {"reading": 1.0, HOSTILE: -2.0}}}
    chosen |= {"test": {"learning": estimate(0.31), "retention": estimate(0.8), "losses_points": {"reading": 7.25}}}
    chosen |= {"interval_over": "seeds", "seeds": 2, "kept_on_test": False}
    arms = [
        arm("gentle", [point(1e-5, 0.31, 0.8), point(3e-5, 0.5, 0.7)], chosen),
        arm(HOSTILE, [point(1e-5, 0.2, 0.6, dominated=True)], {"reason": f"None within 5 points. {HOSTILE}"}),
        arm("_unfinished", [], {"reason": "No cell is finished."}),
    ]
    skills = {"learning": {"direct": {"n": 120, "value": 0.02}}, "retention": {HOSTILE: {"n": 400, "value": 0.85}}}
    base = {
        part: {**estimate(v), "n": n, "skills": skills[part]}
        for part, v, n in (("learning", 0.02, 120), ("retention", 0.85, 400))
    }
    settings = {"model_name_or_path": f"models/{HOSTILE}", "suite": "suite.jsonl", "reference_point": [0.0, 0.1]}
    settings |= {"max_loss_points": 5.0, "adapt": {"trainer": {"hub_token": "secret"}}}
    cells = [
        cell("gentle", "complete"),
        cell(HOSTILE, "failed", f"Not finite: {HOSTILE}"),
        cell("_unfinished", "not run"),
    ]
    return {
        "format": 1,
        "created": "2026-05-04T12:00:00+00:00",
        "command": "afterword compare --adapt hub_token=secret",
        "settings": settings,
        "split": "test",
        "splits": ["dev", "test"],
        "base": {"test": base, "dev": base},
        "base_hypervolume": 0.015,
        "arms": arms,
        "cells": cells,
        "finished": 1,
        "environments": [{"device": "NVIDIA Something", "torch": "2.0"}],
        "notes": [f"A note with {HOSTILE}"],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compare.json").write_text(json.dumps(comparison()), encoding="utf-8")
    return tmp_path


@pytest.fixture
def pages(folder: Path) -> tuple[str, str]:
    html, markdown, _ = write_comparison(folder)
    return html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


class _Checked(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.tags, self.links, self.ids, self.text = [], [], set(), set(), [], []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in {"meta", "br", "link"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links |= {value for name, value in attrs if name in ("src", "href", "xlink:href")}
        self.wrong += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        self.text.append(data)


def read(html: str) -> _Checked:
    page = _Checked()
    page.feed(html)
    page.close()
    return page


def test_the_page_is_well_formed_and_needs_nothing_from_outside(pages):
    page = read(pages[0])
    assert (page.wrong, page.open) == ([], [])
    assert not page.tags & {"script", "img", "link"}
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(page.ids) == len(set(page.ids))


def test_every_arm_is_on_both_pages_and_their_text_is_escaped(pages):
    html, markdown = pages
    text = " ".join(read(html).text)
    for name in ("gentle", "_unfinished", HOSTILE):
        assert name in text
    assert "<script>" not in html
    assert "<script>" not in markdown
    assert "| gentle | 1e-5 |" in markdown
    assert "secret" not in html + markdown


def test_what_a_reader_must_know_is_said(pages):
    text = re.sub(r"\s+", " ", " ".join(read(pages[0]).text))
    for words in (
        "1 of 3 cells of 3 arms finished",
        "120 of learning, 400 of retention",
        "learning 0.0% and retention 10.0%, which was fixed beforehand",
        "The base model alone covers 0.0150",
        "at most 5 points",
        "NVIDIA Something",
        "more than allowed",
        "1.25·10¹²",
        "1 min 1 s",
        "over seeds (t) where a point has two or more",
        "−7.2 points",
        "A note with",
        "Only seeds that were measured at every learning rate of their arm count.",
        "Not run yet.",
    ):
        assert words in text, words


def test_colours_follow_light_and_dark(pages):
    html = pages[0]
    svg = html[html.index("<svg") : html.index("</svg>")]
    assert {"var(--arm-0)", "var(--arm-1)", "var(--paper)", "var(--ink)"} <= set(re.findall(r"var\(--[\w-]+\)", svg))
    assert not re.findall(r": #(?:0708|0[1-6]0)\w+", svg)
    assert LOOKS[0].light in html
    assert LOOKS[0].dark in html


def test_the_figure_names_every_arm_that_has_points(pages):
    svg = pages[0][pages[0].index("<svg") : pages[0].index("</svg>")]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"gentle", "base model", "hollow: dominated", "1e-5", "3e-5"} <= set(texts)
    assert any(text.startswith("&lt;script&gt;") for text in texts)


def test_only_the_ends_of_a_curve_and_its_pick_have_their_rate_beside_them(folder):
    data = comparison()
    data["arms"][0]["points"] = [point(rate, 0.1, 0.8) for rate in (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)]
    data["arms"][0]["pick"]["learning_rate"] = 2e-5
    texts = [text.get_text() for text in frontier._figure(data, {}).axes[0].texts]
    # The second arm has one point.
    assert texts == ["1e-5", "2e-5", "5e-5", "1e-5"]


def test_labels_of_points_that_are_close_cover_neither_each_other_nor_a_point(folder):
    data = comparison()
    close = [(0.05, 0.96), (0.03, 0.91), (0.022, 0.905), (0.01, 0.935)]
    reason = {"reason": "none"}
    data["arms"] = [
        arm(f"arm {i}", [point(1e-4, *p), point(1e-3, 0.3, 0.3 + i / 9)], reason) for i, p in enumerate(close)
    ]
    figure = frontier._figure(data, {})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in combinations(labels, 2))
    places = axes.transData.transform([(100 * x, 100 * y) for y, x in close])
    assert not any(label.contains(*place) for label in labels for place in places)


@pytest.mark.parametrize("value", [0.0, 0.375, 1.0])
def test_arms_that_are_all_alike_stand_on_axes_that_can_be_read(value, folder):
    data = comparison()
    alike = {part: estimate(value, None) for part in ("learning", "retention")}
    data["arms"] = [arm(name, [point(1e-5, value, value) | alike], {"reason": "none"}) for name in ("one", "two")]
    data["base"]["test"] = alike | {"learning": estimate(value, None), "retention": estimate(value, None)}
    figure = frontier._figure(data, {})
    figure.draw_without_rendering()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        low, high = axis.get_view_interval()
        assert low <= 100 * value <= high
        shown = [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert 3 <= len(set(shown)) == len(shown) <= 8, shown
        assert all(re.fullmatch(r"\d+(\.\d)?%", text) and 0 <= float(text[:-1]) <= 100 for text in shown), shown


def test_what_an_item_of_the_smallest_skills_is_worth_stands_beside_the_picks(folder):
    data = comparison()
    counts = {"reading": 40, "reverse": 7, "changed": 12}
    data["base"]["dev"]["retention"]["skills"] = {s: {"n": n, "value": 1.0} for s, n in counts.items()}
    data["base"]["test"] = comparison()["base"]["test"]
    told = "smallest retention skills on dev: reverse, 7 items worth 14.3 points each; changed, 12 items worth 8.3"
    for text in _written(folder, data):
        assert told in text
        assert "One such item, lost at every seed, is more than the limit." in text
    data["settings"]["max_loss_points"] = 20.0
    for text in _written(folder, data):
        assert "smallest retention skill on dev: reverse, 7 items worth 14.3 points each." in text
        assert "more than the limit" not in text


def _written(folder: Path, data: dict[str, Any]) -> list[str]:
    (folder / "compare.json").write_text(json.dumps(data))
    html, markdown, _ = write_comparison(folder)
    return [re.sub(r"\s+", " ", text) for text in (" ".join(read(html.read_text()).text), markdown.read_text())]


def test_the_same_numbers_give_the_same_bytes(folder):
    first = [path.read_bytes() for path in write_comparison(folder) if path]
    assert [path.read_bytes() for path in write_comparison(folder) if path] == first
    assert first[2].startswith(b"\x89PNG")


def test_without_a_finished_cell_there_is_a_page_and_no_picture(folder):
    data = comparison()
    nothing = {"points": [], "hypervolume": None, "pick": {"reason": "No cell is finished."}}
    empty = {"arms": [a | nothing for a in data["arms"]], "base": {}, "split": None, "base_hypervolume": None}
    (folder / "compare.json").write_text(json.dumps(data | empty | {"environments": []}))
    html, markdown, picture = write_comparison(folder)
    assert picture is None
    assert "<svg" not in html.read_text()
    assert "No cell is finished." in markdown.read_text()


def test_more_arms_than_colours_are_told_apart_by_their_lines(folder):
    data = comparison()
    data["arms"] = [arm(f"arm {i}", [point(1e-5, 0.1 + i / 20, 0.5)], {"reason": "none"}) for i in range(8)]
    (folder / "compare.json").write_text(json.dumps(data))
    assert "arm 7" in write_comparison(folder)[0].read_text()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_what_is_no_comparison_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "compare.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"compare\.json"):
        write_comparison(tmp_path)
