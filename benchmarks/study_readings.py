"""A recorded comparison read in other ways: other metrics of learning, only what is new, and the changes one by one.

python benchmarks/study_readings.py studies/almanac-report
python benchmarks/study_readings.py studies/almanac-mixcpt-choose --split dev
With --at-kept 90 80 70 also what is learned where so much (in %) is kept; with --against CPT also differences from an
arm, paired by seed; with --skills the retention skills one by one; with
--label-free whether the old value is still said and how much of the gap to reading the document is left; with
--suite runs/almanac/part1/suite.jsonl the changes one by one, where the folder has its cells/.
"""

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from afterword.comparison.frontier import hypervolume_by_seed, t_interval
from afterword.comparison.summary import read_rows

Row = Mapping[str, Any]
METRICS = {
    "said": "correct_frac",
    "refusing impossible": "correct_refusal_forbidden_frac",
    "chosen of four": "choice_correct_frac",
}
LABEL_FREE = {
    "old value said": ("{split}/learning", "old_value_said_frac", 1.0),
    "gap left, held-out wordings": ("learning/held_out", "kl_from_context_relative_frac", math.inf),
    "gap left, the documents": ("learning/trained", "kl_from_context_relative_frac", math.inf),
}
"""Task, metric and the most that it can be. The gap is the KL from the base model that reads the document, as a share
of what it was before training."""
CHANGED = "changed"
RELATIONS = {
    "mayor": "mayor",
    "director": "director",
    "led": "director",
    "employ": "employer",
    "liv": "home",
    "home": "home",
}
"""What a question about a change holds, and what it asks for."""


def read_study(study: Path) -> tuple[list[Row], dict[str, set[float]]]:
    """The last complete row of every cell that grid.json asks for, and the learning rates that it asks of each arm."""
    cells = json.loads((study / "grid.json").read_text(encoding="utf-8"))["cells"]
    latest, asked = {row["fingerprint"]: row for row in read_rows(study)}, {cell["fingerprint"] for cell in cells}
    rates: dict[str, set[float]] = {}
    for cell in cells:
        rates.setdefault(cell["arm"], set()).add(cell["learning_rate"])
    return [row for name, row in latest.items() if name in asked and row["status"] == "complete"], rates


def header(rows: Sequence[Row], split: str) -> None:
    """Over which skills the mean of each metric is taken: a metric is not measured of every skill."""
    part = f"{split}/learning/"
    print(f"Means over skills, each counting the same ({split} items)")
    for name, metric in METRICS.items():
        print(f"- {name}: {', '.join(_skills(rows, part, metric)) or 'of no skill'}")
    print(f"- kept: {', '.join(_skills(rows, f'{split}/retention/', 'correct_frac'))}")


def _skills(rows: Sequence[Row], part: str, metric: str) -> list[str]:
    tasks = [s["task"] for row in rows for s in row["scores"] if s["metric"] == metric and s["after"]]
    return list(dict.fromkeys(task.removeprefix(part) for task in tasks if task.startswith(part)))


def mean(row: Row, part: str, metric: str, *, side: str = "after", without: str = "") -> float:
    """Unweighted mean over the skills of a part (`split/learning` or `split/retention`); NaN where none has it."""
    wanted = [s for s in row["scores"] if s["task"].startswith(part) and s["metric"] == metric and s[side]]
    values = [s[side]["value"] for s in wanted if not without or s["task"].split("/")[2] != without]
    return float(np.mean(values)) if values else math.nan


def printed(values: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """Mean and t interval over seeds, in %, cut at `low` and `high`; a dash where there is nothing to say."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    found = t_interval(known, low=low, high=high)
    bounds = [f"{100 * bound:.0f}" for bound in found.interval_95 or ()]
    return f"{100 * found.value:.0f}" + (f" [{', '.join(bounds)}]" if bounds else "")


def points(rows: Sequence[Row], without: str, split: str) -> None:
    """Every arm and rate."""
    print(f"\n| arm | lr | {' | '.join(METRICS)} | kept | drift (KL) |\n|---|---|---|---|---|---|---|")
    for arm, rate in dict.fromkeys((row["arm"], row["learning_rate"]) for row in rows):
        some = [row for row in rows if (row["arm"], row["learning_rate"]) == (arm, rate)]
        learned = [
            printed([mean(row, f"{split}/learning", metric, without=without) for row in some])
            for metric in METRICS.values()
        ]
        kept = printed([mean(row, f"{split}/retention", "correct_frac") for row in some])
        drifts = [
            s["after"]["value"]
            for row in some
            for s in row["scores"]
            if s["task"] == "drift/own_samples" and s["metric"] == "kl_nats"
        ]
        print(f"| {arm} | {rate:g} | {' | '.join(learned)} | {kept} | {np.mean(drifts):.2f} |")


def areas(rows: Sequence[Row], rates: Mapping[str, set[float]], without: str, split: str) -> None:
    """Hypervolume of every arm under each metric, reference (0, 0), over the seeds that have all its learning rates."""
    print(f"\n| area | {' | '.join(METRICS)} | seeds | left out |\n|---|---|---|---|---|---|")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        by_metric = [_area_by_seed(own, rates[arm], metric, without, split) for metric in METRICS.values()]
        whole, begun = len(by_metric[0]), len({row["seed"] for row in own})
        shown = [printed(list(by_seed.values())) for by_seed in by_metric]
        print(f"| {arm} | {' | '.join(shown)} | {whole} | {begun - whole} |")


def _area_by_seed(rows: Sequence[Row], rates: set[float], metric: str, without: str, split: str) -> dict[int, float]:
    """Of the rows of an arm. The base model's own point counts beside them."""
    points: dict[int, dict[float, tuple[float, float]]] = {}
    for row, found in [(row, _place(row, "after", metric, without, split)) for row in rows]:
        if not math.isnan(sum(found)):
            points.setdefault(row["seed"], {})[row["learning_rate"]] = found
    return hypervolume_by_seed(points, rates, others=[_place(rows[0], "before", metric, without, split)])


def _place(row: Row, side: str, metric: str, without: str, split: str) -> tuple[float, float]:
    """Learning and retention."""
    learned = mean(row, f"{split}/learning", metric, side=side, without=without)
    return learned, mean(row, f"{split}/retention", "correct_frac", side=side)


def at_equal_retention(rows: Sequence[Row], levels: Sequence[float], without: str, split: str) -> None:
    """What every arm learns where it keeps so much, in %.

    Each seed's curve from the base over the rates upwards, straight between two of them, is read at its first crossing.
    Seeds whose curve does not get there are left out.
    """
    print(f"\n| arm | kept | {' | '.join(METRICS)} | seeds |\n|---|---|---|---|---|---|")
    for arm, level in itertools.product(dict.fromkeys(row["arm"] for row in rows), levels):
        own = [row for row in rows if row["arm"] == arm]
        found = [_at_level(own, level / 100, metric, without, split) for metric in METRICS.values()]
        print(f"| {arm} | {level:g} | {' | '.join(map(printed, found))} | {len(found[0])} |")


def _at_level(rows: Sequence[Row], level: float, metric: str, without: str, split: str) -> list[float]:
    """Learning at a level of retention, one value a seed."""
    values = []
    for curve in _curves(rows, metric, without, split).values():
        for (before, more), (after, less) in itertools.pairwise(curve):
            if more >= level >= less and more > less:
                values.append(before + (after - before) * (more - level) / (more - less))
                break
    return values


def _curves(rows: Sequence[Row], metric: str, without: str, split: str) -> dict[int, list[tuple[float, float]]]:
    """By seed, learning and retention before, then of every rate upwards."""
    place = partial(_place, metric=metric, without=without, split=split)
    curves: dict[int, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row["learning_rate"]):
        curves.setdefault(row["seed"], [place(row, "before")]).append(place(row, "after"))
    return curves


def label_free(rows: Sequence[Row], split: str) -> None:
    """What was not asked: whether the old value of a change is still said, and the gap to reading the document."""
    read = [(task.format(split=split), metric) for task, metric, _ in LABEL_FREE.values()]
    print("\nIn %, means and t intervals over seeds; n of one run:", ", ".join(_counts(rows[0], read)))
    print(f"\n| arm | lr | {' | '.join(LABEL_FREE)} | seeds |\n|---|---|{'---|' * (len(read) + 1)}")
    for arm, rate in dict.fromkeys((row["arm"], row["learning_rate"]) for row in rows):
        some = [row for row in rows if (row["arm"], row["learning_rate"]) == (arm, rate)]
        highs = [high for _, _, high in LABEL_FREE.values()]
        shown = [printed([mean(row, *e) for row in some], high=high) for e, high in zip(read, highs, strict=True)]
        print(f"| {arm} | {rate:g} | {' | '.join(shown)} | {len(some)} |")
    print(f"| before | – | {printed([mean(rows[0], *read[0], side='before')])} | 100 | 100 | – |")


def _counts(row: Row, read: Sequence[tuple[str, str]]) -> list[str]:
    measured = [[s["n"] for s in row["scores"] if s["task"].startswith(task) and s["metric"] == m] for task, m in read]
    return [f"{name} {sum(ns)}" for name, ns in zip(LABEL_FREE, measured, strict=True)]


def differences(rows: Sequence[Row], against: str, without: str, split: str) -> None:
    """Every arm less another one at the same rate, paired by seed."""
    other = {(row["learning_rate"], row["seed"]): row for row in rows if row["arm"] == against}
    print(f"\n| less {against} | lr | {' | '.join(METRICS)} | kept | seeds |\n|---|---|---|---|---|---|---|")
    read = [(f"{split}/learning", metric, without) for metric in METRICS.values()]
    read.append((f"{split}/retention", "correct_frac", ""))
    for arm, rate in dict.fromkeys((row["arm"], row["learning_rate"]) for row in rows):
        some = [row for row in rows if (row["arm"], row["learning_rate"]) == (arm, rate)]
        pairs = [(row, other[rate, row["seed"]]) for row in some if (rate, row["seed"]) in other]
        if arm == against or not pairs:
            continue
        shown = [
            printed(
                [mean(a, part, metric, without=left) - mean(b, part, metric, without=left) for a, b in pairs], low=-1.0
            )
            for part, metric, left in read
        ]
        print(f"| {arm} | {rate:g} | {' | '.join(shown)} | {len(pairs)} |")


def skills(rows: Sequence[Row], split: str) -> None:
    """What became of every retention skill, and of the reference."""
    prefix = f"{split}/retention/"
    names = sorted({s["task"] for row in rows for s in row["scores"] if s["task"].startswith(prefix)})
    print(f"\n| arm | lr | {' | '.join(name.removeprefix(prefix) for name in names)} |\n|---|---|{'---|' * len(names)}")
    for arm, rate in dict.fromkeys((row["arm"], row["learning_rate"]) for row in rows):
        some = [row for row in rows if (row["arm"], row["learning_rate"]) == (arm, rate)]
        cells = [f"{100 * np.mean([mean(row, name, 'correct_frac') for row in some]):.0f}" for name in names]
        print(f"| {arm} | {rate:g} | {' | '.join(cells)} |")
    before = [f"{100 * mean(rows[0], name, 'correct_frac', side='before'):.0f}" for name in names]
    print(f"| before | – | {' | '.join(before)} |")


def changes(study: Path, suite: Path) -> None:
    """What became of every kind of change, over dev and test items and all seeds."""
    lines = [json.loads(line) for line in suite.read_text(encoding="utf-8").splitlines()[1:]]
    kinds = {line["id"]: _kind(line["prompt"]) for line in lines if line["skill"] == CHANGED}
    names = list(dict.fromkeys(kinds.values()))
    print(f"\n| arm | lr | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    found: dict[tuple[str, float], dict[str, list[bool]]] = {}
    for row in read_rows(study):
        folder = next(study.glob(f"cells/{_folder(row['arm'])}-lr{row['learning_rate']:g}-seed{row['seed']}"), None)
        if folder is None:
            continue
        for answer in json.loads((folder / "scores.json").read_text(encoding="utf-8"))["answers"]:
            if kind := kinds.get(answer["id"]):
                of = found.setdefault((row["arm"], row["learning_rate"]), {name: [] for name in names})
                of[kind].append(answer["after_correct"])
    for (arm, rate), of in found.items():
        print(f"| {arm} | {rate:g} | {' | '.join(f'{100 * np.mean(of[name]):.0f}' for name in names)} |")


def _kind(prompt: str) -> str:
    return next(name for word, name in RELATIONS.items() if word in prompt.lower())


def _folder(arm: str) -> str:
    from afterword.settings.compare import arm_folder

    return arm_folder(arm)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--suite", type=Path, help="also the changes one by one")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--skills", action="store_true", help="also every retention skill")
    parser.add_argument("--label-free", action="store_true", help="also what needs no question about the documents")
    parser.add_argument(
        "--at-kept", type=float, nargs="+", metavar="PERCENT", default=[], help="also at equal retention"
    )
    parser.add_argument("--against", metavar="ARM", help="also every arm less this one, paired by seed")
    asked = parser.parse_args()
    if not (asked.study / "grid.json").is_file():
        parser.error(f"study: {str(asked.study)!r} has no grid.json. Give the folder of an `afterword compare`.")
    rows, rates = read_study(asked.study)
    header(rows, asked.split)
    for title, without in (("All that was taught", ""), ("Only what is new, without the changes", CHANGED)):
        print(f"\n{title}")
        points(rows, without, asked.split)
        areas(rows, rates, without, asked.split)
        if asked.at_kept:
            at_equal_retention(rows, asked.at_kept, without, asked.split)
        if asked.against:
            differences(rows, asked.against, without, asked.split)
    if asked.label_free:
        label_free(rows, asked.split)
    if asked.skills:
        skills(rows, asked.split)
    if asked.suite:
        changes(asked.study, asked.suite)


if __name__ == "__main__":
    main()
