"""A recorded comparison read in other ways: other metrics of learning, only what is new, and the changes one by one.

python benchmarks/study_readings.py studies/almanac-report
python benchmarks/study_readings.py studies/almanac-mixcpt-choose --split dev
With --against CPT also differences from an arm, paired by seed; with --skills the retention skills one by one; with
--suite runs/almanac/part1/suite.jsonl the changes one by one, where the folder has its cells/.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afterword.comparison.frontier import hypervolume, t_interval
from afterword.comparison.summarising import read_rows

Row = Mapping[str, Any]
METRICS = {
    "said": "correct_frac",
    "refusing impossible": "correct_refusal_forbidden_frac",
    "chosen of four": "choice_correct_frac",
}
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


def mean(row: Row, part: str, metric: str, *, side: str = "after", without: str = "") -> float:
    """Unweighted mean over the skills of a part (`split/learning` or `split/retention`)."""
    wanted = [s for s in row["scores"] if s["task"].startswith(part) and s["metric"] == metric and s[side]]
    return float(np.mean([s[side]["value"] for s in wanted if s["task"].split("/")[2] != without]))


def printed(values: Sequence[float], low: float = 0.0) -> str:
    """Mean and t interval over seeds, in %, cut at `low`."""
    found = t_interval(values, low=low)
    low, high = found.interval_95 or (None, None)
    return f"{100 * found.value:.0f}" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None else "")


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


def areas(rows: Sequence[Row], without: str, split: str) -> None:
    """Hypervolume of every arm under each metric, reference (0, 0)."""
    print(f"\n| arm | {' | '.join(METRICS)} |\n|---|---|---|---|")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        shown = []
        for metric in METRICS.values():
            seeds = sorted({row["seed"] for row in rows if row["arm"] == arm})
            found = []
            for seed in seeds:
                cells = [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]
                sides = [(row, "after") for row in cells] + [(cells[0], "before")]
                found.append(
                    hypervolume(
                        [
                            (
                                mean(row, f"{split}/learning", metric, side=side, without=without),
                                mean(row, f"{split}/retention", "correct_frac", side=side),
                            )
                            for row, side in sides
                        ]
                    )
                )
            shown.append(printed(found))
        print(f"| {arm} | {' | '.join(shown)} |")


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
    from afterword.comparison.settings import arm_folder

    return arm_folder(arm)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--suite", type=Path, help="also the changes one by one")
    parser.add_argument("--split", default="test", choices=("dev", "test"))
    parser.add_argument("--skills", action="store_true", help="also every retention skill")
    parser.add_argument("--against", metavar="ARM", help="also every arm less this one, paired by seed")
    asked = parser.parse_args()
    rows = [row for row in read_rows(asked.study) if row["status"] == "complete"]
    for title, without in (("All that was taught", ""), ("Only what is new, without the changes", CHANGED)):
        print(f"\n{title}")
        points(rows, without, asked.split)
        areas(rows, without, asked.split)
        if asked.against:
            differences(rows, asked.against, without, asked.split)
    if asked.skills:
        skills(rows, asked.split)
    if asked.suite:
        changes(asked.study, asked.suite)


if __name__ == "__main__":
    main()
