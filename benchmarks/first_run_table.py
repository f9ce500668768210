"""The rows of `first_run.py`: the grid, the defaults, and how much of the best of the grid the defaults reach.

The best of a grid is the cell that learns most among those that keep as much as the defaults: at least their mean, and
beside it those that cannot be told apart from them (the 95 % interval of the paired difference over items holds 0).
Intervals are 95 %, by the bootstrap over questions or items; with several seeds a question's value is its mean.

    python benchmarks/first_run_table.py studies/first-run-news/rows.jsonl
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from real_small_table import percent, read_rows, values

from afterword.evaluation.intervals import paired_change, ratio_of_means

Row = dict[str, Any]


def kept(rows: Sequence[Row]) -> np.ndarray:
    """[items] of every skill, each weighed so that skills count alike, the mean over seeds."""
    skills: Mapping[str, Any] = rows[0]["kept_right"]
    items = sum(len(skill) for skill in skills.values())
    weights = np.concatenate([np.full(len(skill), items / len(skills) / len(skill)) for skill in skills.values()])
    return weights * np.mean([np.concatenate([row["kept_right"][name] for name in skills]) for row in rows], axis=0)


def line(name: str, rows: Sequence[Row]) -> str:
    """A row of the table."""
    drift = float(np.mean([row["drift_nats"] for row in rows]))
    told = (percent(values(rows, "right")), percent(values(rows, "said")), f"{100 * float(np.mean(kept(rows))):.1f}")
    return f"| {name} | {len(rows)} | {' | '.join(told)} | {drift:.3f} |"


def reached(base: Row, defaults: Sequence[Row], cells: Sequence[Row]) -> str:
    """How much of what the best of these cells learned the defaults learned."""
    if not cells:
        return "no cell of the grid keeps as much."
    best = max(cells, key=lambda row: row["choice_frac"])
    given = np.asarray(base["right"], float)
    found = ratio_of_means(values(defaults, "right") - given, np.asarray(best["right"], float) - given)
    interval = "no interval" if found.interval_95 is None else f"{found.interval_95[0]:.2f}, {found.interval_95[1]:.2f}"
    name = f"{best['learning_rate']:g}, {best['num_train_epochs']} passes"
    return f"{name} learned most; the defaults learned {found.value:.2f} of it [{interval}]."


def main() -> None:
    """The table, and a line on each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    rows = read_rows(parser, parser.parse_args().rows)
    base = next((row for row in rows if row["arm"] == "base"), None)
    if base is None:
        parser.error("rows: none is of the model as it was given (arm base). Let first_run.py write it.")
    print("| cell | seeds | chosen, % | said, % | kept, % | drift, nats |\n|---|--:|--:|--:|--:|--:|")
    print(line("as given", [base]))
    said = list[str]()
    for method in dict.fromkeys(row["arm"] for row in rows if row is not base):
        own = [row for row in rows if row["arm"] == method]
        defaults = [row for row in own if row.get("default")]
        grid = sorted((row for row in own if row not in defaults), key=lambda row: row["drift_nats"])
        for row in grid:
            print(line(f"{method}, {row['learning_rate']:g}, {row['num_train_epochs']} passes", [row]))
        if not defaults:
            continue
        print(line(f"{method}, nothing set", defaults))
        level = float(np.mean(kept(defaults)))
        as_much = [row for row in grid if float(np.mean(kept([row]))) >= level]
        said.append(f"{method}, of cells that keep as much: {reached(base, defaults, as_much)}")
        alike = [row for row in grid if _alike(defaults, row)]
        said.append(f"{method}, of cells not told apart in what they keep: {reached(base, defaults, alike)}")
    print("\n" + "\n".join(said))


def _alike(defaults: Sequence[Row], row: Row) -> bool:
    interval = paired_change(kept(defaults), kept([row])).interval_95
    return interval is not None and interval[1] >= 0


if __name__ == "__main__":
    main()
