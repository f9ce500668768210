"""Right answers before and after, with intervals; and which answers are shown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from afterword.demo.lessons import BRIEFLY, Told
from afterword.demo.worlds import World
from afterword.evaluation.intervals import before_and_after, estimate
from afterword.report import display
from afterword.report.demo_page import Answer, Figure, Figures
from afterword.types import Estimate

SEED = 0
Rows = Sequence[Mapping[str, Any]]
"""Answers as scores.json has them."""


def is_right(row: Mapping[str, Any], side: str) -> bool:
    """Whether a question is right as the bars count it: by its choice of four where it has one, else by its answer.

    >>> is_right({"after_chosen": False, "after_correct": True}, "after"), is_right({"after_correct": True}, "after")
    (False, True)
    """
    return bool(row.get(f"{side}_chosen", row[f"{side}_correct"]))


def is_said(row: Mapping[str, Any], side: str) -> bool:
    """Whether the answer that was written passes the checks."""
    return bool(row[f"{side}_correct"])


def figures_of(answers: Rows, reading: Rows, world: World, units: Mapping[str, str]) -> Figures:
    """What was learned and what was kept, together and skill by skill, and what the documents give.

    `units`: what a question asks for, by its id. Questions about the same are not independent.
    """
    of_skill: dict[str, list[Mapping[str, Any]]] = {skill: [] for skill in world.skills}
    for row in answers:
        of_skill.setdefault(row["skill"], []).append(row)
    learned, kept = ([row for row in answers if row["part"] == part] for part in ("learning", "retention"))
    first = of_skill[next(iter(world.skills))]
    said = [_figure("Not chosen but said, in its own words", first, units, is_said)] if first else []
    skills = [_figure(world.skills.get(skill, skill), rows, units) for skill, rows in of_skill.items() if rows]
    opened = [float(is_right(row, "after")) for row in reading]
    return Figures(
        learned=_figure("What it learned", learned, units),
        kept=_figure("What it lost", kept, units),
        ceiling=_printable(estimate(opened)) if opened else None,
        skills=sorted([*skills, *said], key=lambda figure: figure["part"]),
    )


def _figure(
    label: str, rows: Rows, units: Mapping[str, str], right: Callable[[Mapping[str, Any], str], bool] = is_right
) -> Figure:
    """Both sides and the change."""
    before, after = ([float(right(row, side)) for row in rows] for side in ("before", "after"))
    asked = [units[row["id"]] for row in rows]
    found = before_and_after(before, after, units=asked)
    return Figure(
        label=label,
        part=rows[0]["part"],
        n=len(rows),
        units=len(set(asked)),
        before=_printable(found["before"]),
        after=_printable(found["after"]),
        change=_printable(found["change"]),
    )


def _printable(found: Estimate) -> display.Estimate:
    return {"value": found.value, "interval_95": found.interval_95}


def drawn_answers(answers: Rows, counts: Mapping[str, int], told: Mapping[str, Told], again: str) -> list[Answer]:
    """So many questions of each part with what was written before and after, drawn by the seed: nobody chose them.

    None of the skill `again`, which asks for the same facts once more.
    """
    drawn = list[Answer]()
    for part, count in counts.items():
        own = [row for row in answers if row["part"] == part and row["skill"] != again]
        places = np.random.default_rng(SEED).permutation(len(own))[:count]
        drawn += [_shown(own[int(place)], told) for place in sorted(places)]
    return drawn


def _shown(row: Mapping[str, Any], told: Mapping[str, Told]) -> Answer:
    about = told.get(row["id"], Told((), ()))
    return Answer(
        id=row["id"],
        part=row["part"],
        question=row["question"].removesuffix(f" {BRIEFLY}"),
        expected=row["expected"],
        before=row["before"],
        after=row["after"],
        before_correct=row["before_correct"],
        after_correct=row["after_correct"],
        options=about.options,
        documents=about.documents,
    )
