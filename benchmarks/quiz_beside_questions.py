"""Does a quiz put runs in the order in which given questions put them? Rank correlation over cells.

Reads rows of `first_run.py` or `real_small.py` that were measured with `--quiz`. A cell is a trained model; how much it
learned is its share right less that of the model as it was given, which moves no rank. Rows of all files that were
asked the same go together; rows without a quiz are counted, and parts of a way are not cells.

Intervals are 95 %, by the bootstrap over items: questions and the quiz's answers are drawn anew (all wordings of an
answer together), the cells stay. What the cells would be with other seeds is not in them. Drawing items anew adds
noise to both orders, so the middle of an interval lies below the correlation. The last column is what to compare with:
one half of the given questions beside the other half, the mean over draws of halves.

    python benchmarks/quiz_beside_questions.py studies/NAME/rows.jsonl
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]
GIVEN = ("base", "as given")
"""Arms that are the model as it was given: it has learned nothing, by either."""
MEASURES = {"chosen of four": "right", "said": "said"}
RESAMPLES, HALVES = 2_000, 200
LEAST_CELLS = 3


@dataclass(frozen=True)
class Items:
    """What cells answered: [cells, units] right answers, and [units] how many questions a unit has."""

    right: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row], name: str, units: Sequence[str] | None = None) -> "Items":
        """Of a field of the rows; without units every question is its own."""
        asked = np.array([row[name] for row in rows], float)
        places = {unit: place for place, unit in enumerate(dict.fromkeys(units or range(asked.shape[1])))}
        column = [places[unit] for unit in units or range(asked.shape[1])]
        return cls(np.array([np.bincount(column, row) for row in asked]), np.bincount(column).astype(float))

    def shares(self, drawn: np.ndarray) -> np.ndarray:
        """[cells] right of the units that were drawn."""
        return self.right[:, drawn].sum(1) / self.counts[drawn].sum()

    @property
    def all(self) -> np.ndarray:
        """[cells] right of everything."""
        return self.right.sum(1) / self.counts.sum()


def correlations(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Spearman's and Kendall's (tau-b); not a number where all cells are alike."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.nan, np.nan
    return float(stats.spearmanr(one, other).statistic), float(stats.kendalltau(one, other).statistic)


def resampled(questions: Items, quiz: Items) -> np.ndarray:
    """[resamples, 2] both correlations with items of both sides drawn anew."""
    rng, sizes = np.random.default_rng(0), (len(questions.counts), len(quiz.counts))
    draws = ([rng.integers(size, size=size) for size in sizes] for _ in range(RESAMPLES))
    return np.array([correlations(questions.shares(ours), quiz.shares(theirs)) for ours, theirs in draws])


def halves(items: Items) -> float:
    """Spearman's correlation of one half of the items with the other, the mean over draws that have one."""
    rng, size = np.random.default_rng(0), len(items.counts)
    orders = (rng.permutation(size) for _ in range(HALVES))
    found = [correlations(items.shares(o[: size // 2]), items.shares(o[size // 2 :]))[0] for o in orders]
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def line(measure: str, questions: Items, quiz: Items) -> str:
    """A row of the table."""
    shares = [f"{100 * each.all.min():.0f} to {100 * each.all.max():.0f}" for each in (questions, quiz)]
    draws = resampled(questions, quiz).T
    told = [_told(value, drawn) for value, drawn in zip(correlations(questions.all, quiz.all), draws, strict=True)]
    beside = halves(questions)
    return f"| {measure} | {' | '.join([*shares, *told])} | {'–' if np.isnan(beside) else f'{beside:.2f}'} |"


def _told(value: float, drawn: np.ndarray) -> str:
    """A correlation and its interval; none where a draw has no order of the cells."""
    if np.isnan(value):
        return "none: all cells alike"
    if np.isnan(drawn).any():
        return f"{value:.2f} [no interval: {int(np.isnan(drawn).sum())} of {len(drawn)} draws have no order]"
    return f"{value:.2f} [{np.quantile(drawn, 0.025):.2f}, {np.quantile(drawn, 0.975):.2f}]"


def table(rows: Sequence[Row]) -> list[str]:
    """The lines about cells that were asked the same."""
    units = rows[0]["quiz_units"]
    told = f"{len(rows)} cells; {len(rows[0]['right'])} questions; {len(units)} of the quiz"
    head = f"{told}, for {len(set(units))} answers"
    if len(rows) < LEAST_CELLS:
        return [f"{head}. Fewer than {LEAST_CELLS} cells have no order to compare."]
    columns = "measure | questions, % right | quiz, % right | Spearman | Kendall | questions by halves, Spearman"
    lines = [
        line(name, Items.of(rows, field), Items.of(rows, f"quiz_{field}", units)) for name, field in MEASURES.items()
    ]
    return [head, "", f"| {columns} |", "|---|--:|--:|--:|--:|--:|", *lines]


def groups_of(rows: Sequence[Row]) -> tuple[list[list[Row]], int]:
    """Cells that were asked the same, and how many rows have no quiz."""
    cells = [row for row in rows if row["arm"] not in GIVEN]
    groups: dict[tuple[int, tuple[str, ...]], list[Row]] = defaultdict(list)
    for row in cells:
        if "quiz_units" in row:
            groups[len(row["right"]), tuple(row["quiz_units"])].append(row)
    return list(groups.values()), sum("quiz_units" not in row for row in cells)


def main() -> None:
    """A table for each set of questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    files = [path.read_text(encoding="utf-8").splitlines() for path in parser.parse_args().rows]
    groups, without = groups_of([json.loads(text) for lines in files for text in lines if text])
    for rows in groups:
        print("\n".join(table(rows)) + "\n")
    if without or not groups:
        print(f"{without} cells have no quiz: measure them with --quiz.")


if __name__ == "__main__":
    main()
