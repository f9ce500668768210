"""Rebuilt embedded models beside the shipped ones: does a second build come out the same within intervals?

    python -m almanac_build base sft dpo --scratch runs/rebuild/scratch --output runs/rebuild/models
    PYTHONPATH=. python benchmarks/rebuilt_weights.py runs/rebuild/models

Measured as for the cards: test items, greedy; 95 % intervals are percentile bootstrap over items. "apart" where the two
intervals do not overlap.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from afterword.named_models import WEIGHTS
from almanac_build.card import measure


def shown(share: float, interval: Any, factor: float = 100.0) -> str:
    """A value with its interval."""
    low, high = interval or (float("nan"), float("nan"))
    return f"{factor * share:.4g} [{factor * low:.4g}, {factor * high:.4g}]"


def beside(name: str, rebuilt: Path) -> None:
    """The table of one model."""
    recorded = json.loads((WEIGHTS / name / "scores.json").read_text(encoding="utf-8"))
    found, digest = measure(rebuilt / name), hashlib.sha256((rebuilt / name / "model.safetensors").read_bytes())
    same = "the same file" if digest.hexdigest() == recorded["sha256"] else "another file"
    print(
        f"\nalmanac-{name}, {same}\n\n| share right in %, test items | n | shipped | rebuilt | |\n|---|--:|---|---|---|"
    )
    for line, before in zip(found.lines, recorded["scores"], strict=True):
        assert line.name == before["name"], "both are measured alike"
        row(line.name, line.n, before["share"], line.share)
    row("bits per byte", 40, recorded["bits_per_byte"], found.bits_per_byte, factor=1.0)


def row(name: str, n: int, before: Any, now: Any, factor: float = 100.0) -> None:
    """One line, and whether the intervals are apart."""
    intervals = [tuple(before["interval_95"] or ()), tuple(now.interval_95 or ())]
    apart = all(intervals) and (intervals[0][0] > intervals[1][1] or intervals[1][0] > intervals[0][1])
    cells = shown(before["value"], intervals[0], factor), shown(now.value, intervals[1], factor)
    print(f"| {name} | {n} | {' | '.join(cells)} | {'apart' if apart else ''} |", flush=True)


def main() -> None:
    """Print the tables of the models that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rebuilt", type=Path, help="folder of the rebuilt models")
    rebuilt = parser.parse_args().rebuilt
    names = [name for name in ("base", "chat") if (rebuilt / name / "model.safetensors").is_file()]
    if not names:
        parser.error(f"rebuilt: {str(rebuilt)!r} has no base/ or chat/ with a model. Give the --output of a build.")
    for name in names:
        beside(name, rebuilt)


if __name__ == "__main__":
    main()
