"""demo.json, and the page of `afterword demo`, which reads it alone.

The one rule: the verdict follows from the intervals, and says no more than they do.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from afterword.errors import CheckpointError
from afterword.report import pages
from afterword.report.display import Estimate, Score, change, count, interval, value
from afterword.report.run_folder import read_file
from afterword.report.within_budget import within_budget
from afterword.report.wording import Rows, rows_of
from afterword.storage.parsing import parse_json

AGAIN = "Run `afterword demo` again."
_FRAC = "correct_frac"
_NOTHING = 0.1
"""Of what reading gives: who learned less has learned practically nothing."""
_NOTICED = 0.03
"""Of what must be kept: a loss of so much is said also where its interval includes 0."""
_OUTCOMES = {(False, True): "learned", (False, False): "still wrong", (True, True): "kept", (True, False): "lost"}
_HEADINGS = {
    "learned": ("Learned", "Wrong before, right after."),
    "still wrong": ("Still wrong", "Wrong before and after."),
    "kept": ("Kept", "Right before and after."),
    "lost": ("Lost", "Right before, wrong after."),
}


class Figure(TypedDict):
    """The share of right answers to some questions before and after, and its change."""

    label: str
    part: str
    n: int
    units: int
    before: Estimate
    after: Estimate
    change: Estimate


class Figures(TypedDict):
    """What was learned and what was kept, together and skill by skill; and what reading gives."""

    learned: Figure
    kept: Figure
    ceiling: Estimate | None
    skills: list[Figure]


class Answer(TypedDict):
    """What was written to a question before and after."""

    id: str
    part: str
    question: str
    expected: Sequence[str]
    before: str
    after: str
    before_correct: bool
    after_correct: bool
    options: Sequence[str]
    documents: Sequence[int]


class Readable(TypedDict):
    """A document to read."""

    number: int
    title: str
    source: str
    paragraphs: list[str]


class Demo(TypedDict):
    """What is in demo.json when a demo came to its end."""

    format: int
    created: str
    seconds: float
    world: str
    story: str
    closing: str
    model: str
    parameters: int
    taught: int
    label: str
    settings: Mapping[str, Any]
    commands: list[str]
    steps: int
    training_seconds: float
    budget: Mapping[str, Any]
    figures: Figures
    drift: list[Score]
    answers: list[Answer]
    documents: Sequence[Readable]


class Mark(TypedDict):
    """A share in digits, and where it and its interval are drawn."""

    name: str
    label: str
    style: str
    value: float
    mean: str
    interval: str
    at: str
    low: str
    width: str


class Bar(TypedDict):
    """One of the two bars at the top."""

    name: str
    heading: str
    about: str
    marks: list[Mark]
    change: Mapping[str, str]
    moved: Mapping[str, str]
    fell: bool


class Group(TypedDict):
    """Answers of which the same became."""

    heading: str
    meaning: str
    answers: list[Answer]


class Page(TypedDict):
    """Everything that the page prints, and the end of the terminal's story."""

    demo: Demo
    model_name: str
    verdict: str
    bars: list[Bar]
    parts: Mapping[str, Rows]
    drift: Rows
    groups: Mapping[str, Group]
    budget: Mapping[str, Any] | None
    settings: Mapping[str, str]


def write_demo(folder: Path) -> Path:
    """Write demo.html (self-contained) into a demo's folder."""
    return pages.write_page(folder / "demo.html", dict(build_demo(folder)))


def build_demo(folder: Path) -> Page:
    """What the page prints. CheckpointError where there is no demo."""
    demo = load_demo(folder / "demo.json")
    figures = demo["figures"]
    rows = [(figure["part"], _row(figure)) for figure in figures["skills"]]
    return Page(
        demo=demo,
        model_name=Path(demo["model"]).name,
        verdict=verdict(figures),
        bars=[_learned_bar(figures), _kept_bar(figures["kept"])],
        parts={part: [row for of, row in rows if of == part] for part in ("learning", "retention")},
        drift=rows_of(demo["drift"]),
        groups=_groups(demo["answers"]),
        budget=within_budget(demo["budget"]),
        settings=pages.printed_settings(demo["settings"]),
    )


def load_demo(file: Path) -> Demo:
    """demo.json of a demo that came to its end: what it writes last is there."""
    demo = read_file(file, lambda text: dict(parse_json(text)), AGAIN)
    if "figures" not in demo:
        raise CheckpointError(f"{file}: this demo did not come to its end. {AGAIN}")
    return cast(Demo, demo)


def verdict(figures: Figures) -> str:
    """What was learned and what was lost, in a sentence."""
    return f"{_what_was_learned(figures['learned'], figures['ceiling'])}, {_what_was_lost(figures['kept'])}."


def _what_was_learned(figure: Figure, read: Estimate | None) -> str:
    before, after = figure["before"]["value"], figure["after"]["value"]
    ceiling = read["value"] if read else None
    low = (figure["change"]["interval_95"] or [0.0])[0]
    room, moved = (ceiling or 1.0) - before, f"{_percent(before)} → {_percent(after)}"
    if low <= 0 or (room > 0 and after - before < _NOTHING * room):
        return f"Practically nothing was learned ({moved} right)"
    if room <= 0 or ceiling is None:
        return f"The model learned ({moved} of the questions right)"
    share = _percent(min(1.0, (after - before) / room))
    aside = f"{moved} right, {_percent(ceiling)} with the document at hand"
    return f"The model learned {share} of what reading gives ({aside})"


def _what_was_lost(figure: Figure) -> str:
    low, high = figure["change"]["interval_95"] or (0.0, 0.0)
    moved = f"{_percent(figure['before']['value'])} → {_percent(figure['after']['value'])}"
    lost = f"{abs(100 * figure['change']['value']):.0f}"
    if high < 0:
        return f"and lost {lost} points of what it could do before ({moved})"
    if low > 0:
        return f"and does even better at what it could do before ({moved})"
    if figure["change"]["value"] <= -_NOTICED:
        return f"and may have lost {lost} points of what it could do before ({moved}; so few questions cannot tell)"
    return f"and nothing was lost that {count(figure['n'])} other questions could show ({moved})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _learned_bar(figures: Figures) -> Bar:
    figure = figures["learned"]
    about = f"{count(figure['n'])} questions about {count(figure['units'])} facts of the documents"
    # A model whose context holds no document has none.
    read = [_mark("ceiling", "With the text", figures["ceiling"], "cyan")] if figures["ceiling"] else []
    return _bar("learned", f"{about}, a choice of four each", figure, read)


def _kept_bar(figure: Figure) -> Bar:
    about = f"{count(figure['n'])} questions and instructions that have nothing to do with them"
    return _bar("kept", about, figure, [])


def _bar(name: str, about: str, figure: Figure, more: list[Mark]) -> Bar:
    before, after = figure["before"]["value"], figure["after"]["value"]
    marks = [_mark("before", "Before", figure["before"], "dim"), _mark("after", "After", figure["after"], "green")]
    moved = {"low": f"{100 * min(before, after):.2f}%", "width": f"{100 * abs(after - before):.2f}%"}
    return Bar(
        name=name,
        heading=figure["label"],
        about=about,
        marks=[*marks, *more],
        change=_change(figure),
        moved=moved,
        fell=after < before,
    )


def _change(figure: Figure) -> dict[str, str]:
    moved = figure["change"]
    return {"mean": change(_FRAC, moved["value"], 0), "interval": interval(_FRAC, moved, 0)}


def _mark(name: str, label: str, estimate: Estimate, style: str = "") -> Mark:
    low, high = estimate["interval_95"] or (estimate["value"],) * 2
    at, low, width = (f"{100 * x:.2f}%" for x in (estimate["value"], low, high - low))
    mean = value(_FRAC, estimate["value"], 0).replace("%", " %")
    printed = interval(_FRAC, estimate, 0)
    return Mark(
        name=name,
        label=label,
        style=style,
        value=estimate["value"],
        mean=mean,
        interval=printed,
        at=at,
        low=low,
        width=width,
    )


def _row(figure: Figure) -> dict[str, Any]:
    """A row of the table: what it is, how many, before, after and the change."""
    before, after = _mark("before", "", figure["before"]), _mark("after", "", figure["after"])
    return {"label": figure["label"], "n": figure["n"], "before": before, "after": after, "change": _change(figure)}


def outcome(answer: Answer) -> str:
    """What became of an answer in the model's own words."""
    return _OUTCOMES[answer["before_correct"], answer["after_correct"]]


def _groups(answers: Sequence[Answer]) -> dict[str, Group]:
    """The answers by what became of them, in the order in which they were drawn."""
    return {
        name: Group(heading=heading, meaning=meaning, answers=[answer for answer in answers if outcome(answer) == name])
        for name, (heading, meaning) in _HEADINGS.items()
    }
