"""What "chosen of four" gives to one who knows nothing but which names are new: 25 % is what it should.

    python benchmarks/blind_choices.py runs/almanac/part1

Reads suite.jsonl and facts.jsonl of folders that `afterword almanac` wrote. Of the choices of a question, those that
name something from after the cutoff are taken, one of them at random; where none does, one of all.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Of a file of JSON lines."""
    yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def right_by_novelty(folder: Path, split: str) -> dict[str, list[float]]:
    """By skill, the chance of being right on every question that has choices."""
    new = {fact["subject"] for fact in rows_of(folder / "facts.jsonl") if "subject" in fact}
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows_of(folder / "suite.jsonl"):
        if row.get("part") == "learning" and row.get("choices") and row["split"] == split:
            named_new = [choice in new for choice in (row["answer"], *row["choices"])]
            found[row["skill"]].append(named_new[0] / sum(named_new) if any(named_new) else 1 / len(named_new))
    return found


def main() -> None:
    """A line for every skill of every folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--split", default="test")
    asked = parser.parse_args()
    print("| folder | skill | n | right by novelty alone, % |\n|---|---|--:|--:|")
    for folder in asked.folders:
        found = right_by_novelty(folder, asked.split)
        for skill, shares in sorted(found.items()):
            print(f"| {folder.name} | {skill} | {len(shares)} | {100 * mean(shares):.0f} |")
        of_new = [mean(shares) for skill, shares in found.items() if skill != "changed"]
        print(f"| {folder.name} | mean over skills, without changes | | {100 * mean(of_new):.0f} |")


if __name__ == "__main__":
    main()
