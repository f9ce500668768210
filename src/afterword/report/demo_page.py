"""The page of `afterword demo`. Reads demo.json alone.

The one rule: the verdict follows from the intervals, and says no more than they do.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.errors import CheckpointError
from afterword.report import pages
from afterword.report.display import change, count, interval, value
from afterword.report.run_folder import read_file
from afterword.report.within_budget import within_budget
from afterword.report.wording import Rows
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
_SKILLS = {
    "told": "As the questions were written first",
    "otherwise": "In other words",
    "said": "Not chosen but said, in its own words",
    "facts": "Facts of general knowledge",
    "sense": "Common sense",
    "reading": "Reading a short text",
    "instructions": "Following an instruction",
}


def write_demo(folder: Path) -> Path:
    """Write demo.html (self-contained) into a demo's folder."""
    return pages._write(folder / "demo.html", build_demo(folder))


def build_demo(folder: Path) -> dict[str, Any]:
    """Everything that the page prints, and the end of the terminal's story. CheckpointError where there is no demo."""
    demo = load_demo(folder / "demo.json")
    figures = demo["figures"]
    return {
        "demo": demo,
        "model_name": Path(demo["model"]).name,
        "verdict": verdict(figures["learned"], figures["kept"]),
        "bars": [_learned_bar(figures["learned"]), _kept_bar(figures["kept"])],
        "parts": [_part(figures, ("told", "otherwise", "said")), _part(figures["skills"], figures["skills"])],
        "groups": _groups(demo["answers"]),
        "documents": [_document(document) for document in demo["documents"]],
        "budget": within_budget(demo.get("budget")),
        "settings": pages.printed_settings(demo["settings"]),
    }


def load_demo(file: Path, end: str = "figures") -> dict[str, Any]:
    """demo.json of a demo that came to its end: what it writes last is there."""
    demo = read_file(file, lambda text: dict(parse_json(text)), AGAIN)
    if end not in demo:
        raise CheckpointError(f"{file}: this demo did not come to its end. {AGAIN}")
    return demo


def verdict(learned: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """What was learned and what was lost, in a sentence."""
    return f"{_what_was_learned(learned)}, {_what_was_lost(kept)}."


def _what_was_learned(figure: Mapping[str, Any]) -> str:
    before, after = (figure[name]["value"] for name in ("before", "after"))
    ceiling = figure["ceiling"]["value"] if figure["ceiling"] else None
    low = (figure["change"]["interval_95"] or [0.0])[0]
    room, moved = (ceiling or 1.0) - before, f"{_percent(before)} → {_percent(after)}"
    if low <= 0 or (room > 0 and after - before < _NOTHING * room):
        return f"Practically nothing was learned ({moved} right)"
    if room <= 0 or ceiling is None:
        return f"The model learned ({moved} of the questions right)"
    share = _percent(min(1.0, (after - before) / room))
    aside = f"{moved} right, {_percent(ceiling)} with the document at hand"
    return f"The model learned {share} of what reading gives ({aside})"


def _what_was_lost(figure: Mapping[str, Any]) -> str:
    change_of = figure["change"]
    low, high = change_of["interval_95"] or (0.0, 0.0)
    moved = f"{_percent(figure['before']['value'])} → {_percent(figure['after']['value'])}"
    if high < 0:
        return f"and lost {abs(100 * change_of['value']):.0f} points of what it could do before ({moved})"
    if low > 0:
        return f"and does even better at what it could do before ({moved})"
    if change_of["value"] <= -_NOTICED:
        lost = abs(100 * change_of["value"])
        return f"and may have lost {lost:.0f} points of what it could do before ({moved}; so few questions cannot tell)"
    return f"and nothing was lost that {count(figure['n'])} other questions could show ({moved})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _learned_bar(figure: Mapping[str, Any]) -> dict[str, Any]:
    asked = f"{count(figure['n'])} questions about {count(figure['units'])} facts of the documents"
    marks = [_mark("before", "Before", figure["before"], "dim"), _mark("after", "After", figure["after"], "green")]
    # A model whose context holds no document has none.
    marks += [_mark("ceiling", "With the text", figure["ceiling"], "cyan")] if figure["ceiling"] else []
    return _bar("learned", "What it learned", f"{asked}, a choice of four each", figure, marks)


def _kept_bar(figure: Mapping[str, Any]) -> dict[str, Any]:
    about = f"{count(figure['n'])} questions and instructions that have nothing to do with them"
    marks = [_mark("before", "Before", figure["before"], "dim"), _mark("after", "After", figure["after"], "green")]
    return _bar("kept", "What it lost", about, figure, marks)


def _bar(name: str, heading: str, about: str, figure: Mapping[str, Any], marks: Rows) -> dict[str, Any]:
    moved = figure["change"]
    changed = {"mean": change(_FRAC, moved["value"], 0), "interval": interval(_FRAC, moved, 0)}
    before, after = figure["before"]["value"], figure["after"]["value"]
    drawn = {"low": f"{100 * min(before, after):.2f}%", "width": f"{100 * abs(after - before):.2f}%"}
    return {"name": name, "heading": heading, "about": about, "marks": marks, "change": changed, "n": figure["n"]} | {
        "by_name": {mark["name"]: mark for mark in marks},
        "moved": drawn,
        "fell": after < before,
    }


def _mark(name: str, label: str, estimate: Mapping[str, Any], style: str) -> dict[str, Any]:
    low, high = estimate["interval_95"] or (estimate["value"],) * 2
    places = {"at": estimate["value"], "low": low, "width": high - low}
    printed = {"mean": value(_FRAC, estimate["value"], 0).replace("%", " %"), "interval": interval(_FRAC, estimate, 0)}
    drawn = {place: f"{100 * x:.2f}%" for place, x in places.items()}
    return {"name": name, "label": label, "value": estimate["value"], "style": style, **printed, **drawn}


def _part(figures: Mapping[str, Any], names: Sequence[str] | Mapping[str, Any]) -> Rows:
    """Rows of a table: what it is, how many, before, after and the change."""
    return [_row(_SKILLS.get(name, name), figures[name]) for name in names]


def _row(label: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    sides = {side: _mark(side, side, figure[side], "") for side in ("before", "after")}
    return {"label": label, "n": figure["n"], **sides, "change": change(_FRAC, figure["change"]["value"], 0)} | {
        "interval": interval(_FRAC, figure["change"], 0)
    }


def outcome(answer: Mapping[str, Any]) -> str:
    """What became of an answer in the model's own words.

    >>> outcome({"before_correct": False, "after_correct": True})
    'learned'
    """
    return _OUTCOMES[answer["before_correct"], answer["after_correct"]]


def _groups(answers: Rows) -> dict[str, dict[str, Any]]:
    """The answers by what became of them, in the order in which they were drawn."""
    return {
        name: {
            "heading": heading,
            "meaning": meaning,
            "answers": [answer for answer in answers if outcome(answer) == name],
        }
        for name, (heading, meaning) in _HEADINGS.items()
    }


def _document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document to read: its paragraphs without the title and the line that says whose text it is."""
    paragraphs = [part.strip() for part in document["text"].split("\n\n") if part.strip()]
    about = {name: document[name] for name in ("number", "title", "source")}
    return about | {"paragraphs": paragraphs[2:]}
