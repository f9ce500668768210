"""The rows of `real_small.py` as a table, and every arm beside a baseline, paired by question.

Intervals are 95 %, by the bootstrap over questions; with several seeds a question's value is its mean over them.

    python benchmarks/real_small_table.py studies/real-small-news/rows.jsonl --baseline Fine-tuning
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterword.evaluation.intervals import estimate, paired_change

Row = dict[str, Any]


def read_rows(parser: argparse.ArgumentParser, file: Path) -> list[Row]:
    """The rows of a study. A file that is none of one ends the program with a sentence."""
    try:
        rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        parser.error(f"{file}: {said}. Give the rows.jsonl that a study has written.")
    if not all(isinstance(row, dict) and "arm" in row for row in rows) or not rows:
        parser.error(f"{file}: holds no rows of a study. Give the rows.jsonl that one has written.")
    return rows


def values(rows: Sequence[Row], name: str) -> np.ndarray:
    """[questions] of an arm at a rate: the mean over its seeds."""
    return np.mean([row[name] for row in rows], axis=0)


def written(rows: Sequence[Row]) -> np.ndarray:
    """[prompts] whether what must be kept in writing was kept, the mean over seeds."""
    return np.mean([row["kept_right"]["written"] for row in rows], axis=0)


def tasks(rows: Sequence[Row]) -> np.ndarray:
    """[items] of all tasks, which have as many items each."""
    names = [name for name in rows[0]["kept_right"] if name != "written"]
    return np.mean([[right for name in names for right in row["kept_right"][name]] for row in rows], axis=0)


def percent(found: np.ndarray) -> str:
    """A mean and its interval."""
    mean = estimate(found)
    low, high = mean.interval_95 or (np.nan, np.nan)
    return f"{100 * mean.value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def change(before: np.ndarray, after: np.ndarray) -> str:
    """Points by which the second is above the first."""
    found = paired_change(before, after)
    low, high = found.interval_95 or (np.nan, np.nan)
    return f"{100 * found.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--baseline", default="Fine-tuning")
    parser.add_argument("--rate", type=float, default=2e-4, help="Of the baseline.")
    args = parser.parse_args()
    cells = defaultdict[tuple[str, float, float], list[Row]](list)
    for row in read_rows(parser, args.rows):
        cells[row["arm"], row["learning_rate"], 1.0].append(row)
        for part in row.get("way", ()):
            cells[row["arm"], row["learning_rate"], part["share"]].append({**row, **part})
    print("| arm | rate | share of the way | seeds | chosen, % | said, % | tasks, % | written, % | drift, nats |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for (arm, rate, share), rows in cells.items():
        measured = (percent(each) for each in (values(rows, "right"), values(rows, "said"), tasks(rows), written(rows)))
        drift = float(np.mean([row["drift_nats"] for row in rows]))
        print(f"| {arm} | {rate:g} | {share:g} | {len(rows)} | {' | '.join(measured)} | {drift:.3f} |")
    baseline = cells.get((args.baseline, args.rate, 1.0), [])
    by_seed = {row["seed"]: row for row in baseline}
    print(f"\n| beside {args.baseline} at {args.rate:g} | seeds | chosen, points | said | tasks | written |")
    print("|---|--:|--:|--:|--:|--:|")
    for (arm, rate, share), rows in cells.items():
        paired = [(by_seed[row["seed"]], row) for row in rows if row["seed"] in by_seed and row["arm"] != "as given"]
        if not paired or (arm, rate, share) == (args.baseline, args.rate, 1.0):
            continue
        ours, theirs = [row for _, row in paired], [row for row, _ in paired]
        parts = [change(values(theirs, name), values(ours, name)) for name in ("right", "said")]
        same_items = len(tasks(ours)) == len(tasks(theirs))
        parts += [change(tasks(theirs), tasks(ours)) if same_items else "–", change(written(theirs), written(ours))]
        print(f"| {arm}, {rate:g}, {share:g} of the way | {len(paired)} | {' | '.join(parts)} |")


if __name__ == "__main__":
    main()
