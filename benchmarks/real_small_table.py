"""The rows of `real_small.py` as tables: every cell, every cell beside a baseline, and what every arm covers.

Intervals are 95 %, by the bootstrap over questions; with several seeds a question's value is its mean over them.
FLOPs and minutes are of training steps; "in all" has the run's start and what was written for it before, where that
was not stored yet. A look at a step before it is taken, as TALR has one, is in the minutes and not in the FLOPs.

What an arm covers: its cells and blends are points of learning (chosen, in percent) and keeping (the mean of tasks and
of the suite `everyday`, in percent; of the fifty written where the model as given was not asked the suite). The area
that they dominate above a reference point is their hypervolume, "size of the space covered" (Zitzler and Thiele 1999,
IEEE Transactions on Evolutionary Computation 3(4)). The reference point is what the model as given has chosen, and 0.8
of what it keeps: who learns nothing, or loses a fifth, covers nothing. It is in points². Questions, items and prompts
are drawn anew together for all arms and for the model as given. Of points that are measured with an error the best are
too good, so more cells cover more by chance, too: compare arms with as many.

    python benchmarks/real_small_table.py studies/real-small-news/rows.jsonl --baseline Fine-tuning
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterword.comparison.frontier import hypervolume
from afterword.evaluation.intervals import estimate, paired_change

Row = dict[str, Any]
Cells = Mapping[tuple[str, float, float], list[Row]]
"""Rows of all seeds by arm, learning rate and share of the way."""
GIVEN = "as given"


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


def everyday(rows: Sequence[Row]) -> np.ndarray | None:
    """[prompts] of the suite `everyday`, likewise, over the seeds that were asked it; None where none was."""
    asked = [row["everyday_right"] for row in rows if "everyday_right" in row]
    return np.mean([[right for skill in row.values() for right in skill] for row in asked], axis=0) if asked else None


def in_writing(rows: Sequence[Row]) -> np.ndarray:
    """[prompts] of the suite, or else of the fifty."""
    found = everyday(rows)
    return written(rows) if found is None else found


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


def cost(rows: Sequence[Row], name: str, unit: float) -> str:
    """The mean over seeds in a unit; a dash where it was not recorded."""
    return f"{np.mean([row[name] for row in rows]) / unit:.1f}" if all(name in row for row in rows) else "–"


def cells_of(rows: Sequence[Row]) -> Cells:
    """Every cell, and every share of its way."""
    cells = defaultdict[tuple[str, float, float], list[Row]](list)
    for row in rows:
        cells[row["arm"], row["learning_rate"], 1.0].append(row)
        for part in row.get("way", ()):
            cells[row["arm"], row["learning_rate"], part["share"]].append({**row, **part})
    return cells


def drawn(cells: Cells, resamples: int) -> dict[tuple[str, float, float], np.ndarray]:
    """[1 + resamples, 2] learning and keeping in percent of every cell: as measured, then of items drawn anew.

    The draws are the same for all cells. Those that were not measured on the items of the model as given are left out.
    """
    kinds = {key: (values(rows, "right"), tasks(rows), in_writing(rows)) for key, rows in cells.items()}
    sizes = [len(kind) for kind in kinds[GIVEN, 0.0, 1.0]]
    rng = np.random.default_rng(0)
    draws = [np.vstack([np.arange(n), rng.integers(n, size=(resamples, n))]) for n in sizes]
    found = dict[tuple[str, float, float], np.ndarray]()
    for key, items in kinds.items():
        if [len(kind) for kind in items] == sizes:
            chosen, of_tasks, of_written = (kind[draw].mean(-1) for kind, draw in zip(items, draws, strict=True))
            found[key] = 100 * np.stack([chosen, (of_tasks + of_written) / 2], axis=-1)
    return found


def covered(points: Sequence[np.ndarray], given: np.ndarray, least_kept: float) -> np.ndarray:
    """[draws] the hypervolume of points [draws, 2] above what the model as given learned, and so much of what it keeps.

    By hand: 60 and 50 where the model as given has 20 and 50 cover 40 · (50 − 40).

    >>> covered([np.array([[60.0, 50.0]])], np.array([[20.0, 50.0]]), 0.8)
    array([400.])
    """
    draws = zip(given, *points, strict=True)
    return np.array([hypervolume([*map(tuple, own)], (base[0], least_kept * base[1])) for base, *own in draws])


def span(found: np.ndarray, sign: str = "") -> str:
    """The first value, and the interval of the others."""
    low, high = np.percentile(found[1:], [2.5, 97.5])
    return f"{found[0]:{sign}.0f} [{low:{sign}.0f}, {high:{sign}.0f}]"


def print_cells(cells: Cells) -> None:
    """What every cell learned and kept, and what it cost."""
    asked = "chosen, % | said, % | tasks, % | everyday, % | written, %"
    columns = f"{asked} | drift, nats | on replies | TFLOP | minutes | in all"
    print(f"| arm | rate | share of the way | seeds | {columns} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for (arm, rate, share), rows in cells.items():
        asked = (values(rows, "right"), values(rows, "said"), tasks(rows), everyday(rows), written(rows))
        measured = ("–" if each is None else percent(each) for each in asked)
        drifts = [f"{np.mean([row['drift_nats'] for row in rows]):.3f}", _on_replies(rows)]
        costs = " | ".join(cost(rows, *of) for of in (("flops", 1e12), ("train_seconds", 60), ("run_seconds", 60)))
        print(f"| {arm} | {rate:g} | {share:g} | {len(rows)} | {' | '.join([*measured, *drifts])} | {costs} |")


def _on_replies(rows: Sequence[Row]) -> str:
    """Drift on the replies to everyday questions, of the seeds where it was measured."""
    found = [row["everyday_drift_nats"] for row in rows if "everyday_drift_nats" in row]
    return f"{np.mean(found):.3f}" if found else "–"


def print_beside(cells: Cells, baseline: str, rate: float) -> None:
    """Every cell beside the baseline, paired by question and seed."""
    by_seed = {row["seed"]: row for row in cells.get((baseline, rate, 1.0), [])}
    print(f"\n| beside {baseline} at {rate:g} | seeds | chosen, points | said | tasks | everyday | written |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for key, rows in cells.items():
        paired = [(by_seed[row["seed"]], row) for row in rows if row["seed"] in by_seed and row["arm"] != GIVEN]
        if not paired or key == (baseline, rate, 1.0):
            continue
        ours, theirs = [row for _, row in paired], [row for row, _ in paired]
        parts = [change(values(theirs, name), values(ours, name)) for name in ("right", "said")]
        same_items = len(tasks(ours)) == len(tasks(theirs))
        both = [pair for pair in paired if all("everyday_right" in row for row in pair)]
        before, after = (everyday([pair[side] for pair in both]) for side in (0, 1))
        parts.append(change(tasks(theirs), tasks(ours)) if same_items else "–")
        parts.append("–" if before is None or after is None else change(before, after))
        parts.append(change(written(theirs), written(ours)))
        print(f"| {key[0]}, {key[1]:g}, {key[2]:g} of the way | {len(paired)} | {' | '.join(parts)} |")


def print_covered(cells: Cells, baseline: str, least_kept: float, resamples: int) -> None:
    """What every arm covers, the widest first."""
    found = drawn(cells, resamples)
    given, by_arm = found[GIVEN, 0.0, 1.0], defaultdict[str, list[np.ndarray]](list)
    for (arm, _, _), points in found.items():
        if arm != GIVEN:
            by_arm[arm].append(points)
    areas = {arm: covered(points, given, least_kept) for arm, points in by_arm.items()}
    print(f"\n| covers, points² | cells and blends | area | beside {baseline} |")
    print("|---|--:|--:|--:|")
    for arm in sorted(areas, key=lambda arm: -areas[arm][0]):
        beside = span(areas[arm] - areas[baseline], "+") if baseline in areas and arm != baseline else "–"
        print(f"| {arm} | {len(by_arm[arm])} | {span(areas[arm])} | {beside} |")
    if left := [f"{arm} at {rate:g}" for arm, rate, share in cells if share == 1.0 and (arm, rate, share) not in found]:
        print(f"\nNot among them, because they were measured on other items: {', '.join(left)}.")


def main() -> None:
    """The three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--baseline", default="Fine-tuning")
    parser.add_argument("--rate", type=float, default=2e-4, help="Of the baseline.")
    parser.add_argument("--least-kept", type=float, default=0.8, help="Share of what the model as given keeps.")
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args()
    cells = cells_of(read_rows(parser, args.rows))
    print_cells(cells)
    print_beside(cells, args.baseline, args.rate)
    if (GIVEN, 0.0, 1.0) in cells:
        print_covered(cells, args.baseline, args.least_kept, args.resamples)


if __name__ == "__main__":
    main()
