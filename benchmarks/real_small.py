"""The study of a small real model: every arm of a recipe, trained on real documents and asked what it learned and kept.

Arms, learning rates and settings are those of a recipe of `afterword compare`; what is measured is `real_measures`:
questions about the documents by choice and in writing, tasks of other subjects, fifty questions and instructions in
writing, drift. Every cell is a row of OUTPUT/rows.jsonl, and its weights are removed: the same command goes on where
it was stopped, and several processes may share the cells. With `--shares` a cell is measured on its way, too.

    python benchmarks/real_small.py recipes/real-small.yaml --documents D.jsonl --questions Q.jsonl \\
        --keep TASK.jsonl … -o studies/real-small-news
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from real_measures import Study, drawn, measured, read_study, rows_of

from afterword.comparison.costs import cost_of
from afterword.comparison.grid import arms_of
from afterword.models import blended, load_model, size_of
from afterword.settings.adapt import read_settings
from afterword.settings.base import underscored
from afterword.settings.compare import CompareSettings, arm_folder
from afterword.storage.hashes import json_sha256
from afterword.training import run_adaptation


@dataclass(frozen=True)
class Cell:
    """An arm at a learning rate and a seed; `arm` alone is the model as it was given."""

    arm: str
    settings: dict[str, Any]
    learning_rate: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """What its row is known by: the settings are in it, so that a changed arm is run again."""
        return f"{arm_folder(self.arm)}-{self.learning_rate:g}-{self.seed}-{json_sha256(self.settings)[:8]}"


def cells_of(recipe: CompareSettings, arms: list[str], seeds: list[int], rates: list[float]) -> Iterator[Cell]:
    """The model as it was given, then by seed and arm every learning rate."""
    yield Cell("as given", {})
    for seed in seeds or recipe.seeds:
        for arm in arms_of(recipe):
            if not arms or arm.name in arms:
                for rate in rates or arm.axes.learning_rates:
                    yield Cell(arm.name, {**underscored(recipe.adapt), **arm.settings}, rate, seed)


def run_cell(study: Study, cell: Cell, args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one cell."""
    if not cell.settings:
        return measured(study, study.reference)
    folder, started = args.output / "cells" / cell.name, time.perf_counter()
    settings = {**cell.settings, "learning_rate": cell.learning_rate, "seed": cell.seed}
    with torch.enable_grad():
        given = {"model_name_or_path": args.model, "documents": [str(args.chosen)], "output_dir": str(folder)}
        run_adaptation(read_settings({**settings, **given}))
    seconds = time.perf_counter() - started
    trained = load_model(str(folder)).eval()
    row = {
        **measured(study, trained),
        "run_seconds": seconds,
        **cost_of(folder, size_of(study.reference), frozen=bool(cell.settings.get("use_peft"))),
    }
    row["way"] = [
        {"share": share, **measured(study, blended(study.reference, trained, share))} for share in args.shares
    ]
    shutil.rmtree(folder, ignore_errors=True)
    return row


def main() -> None:
    """Every cell that has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--quiz", type=Path, help="A second set of questions, of `afterword quiz`: its test half.")
    parser.add_argument("--keep", type=Path, nargs="+", required=True, help="Tasks: JSON lines, one file each.")
    parser.add_argument("--arms", nargs="*", default=[], help="Only these.")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="Instead of those of the recipe.")
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="Instead of those of the recipe.")
    parser.add_argument("--shares", type=float, nargs="*", default=[], help="Of the way from the base, measured too.")
    parser.add_argument("--max-documents", type=int, default=30)
    parser.add_argument("--max-questions", type=int, default=100)
    parser.add_argument("--items", type=int, default=150, help="Of each task.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    recipe = read_settings(yaml.safe_load(args.recipe.read_text(encoding="utf-8")), CompareSettings)
    args.model, args.suite = recipe.model_name_or_path, None
    args.output.mkdir(parents=True, exist_ok=True)
    args.chosen = args.output / "documents.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in drawn(rows_of(args.documents), args.max_documents)]
    args.chosen.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, study = args.output / "rows.jsonl", read_study(args)
    for cell in cells_of(recipe, args.arms, args.seeds, args.rates):
        try:
            with FileLock(args.output / f"{cell.name}.lock", timeout=0):
                if any(row["cell"] == cell.name for row in (rows_of(rows) if rows.exists() else [])):
                    continue
                about = {"cell": cell.name, "arm": cell.arm, "learning_rate": cell.learning_rate, "seed": cell.seed}
                row = {**about, "settings": cell.settings, **run_cell(study, cell, args)}
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                names = ("cell", "choice_frac", "said_frac", "tasks_frac", "kept", "drift_nats", "measure_seconds")
                print(json.dumps({name: row[name] for name in names}), row.get("train_seconds"), flush=True)
        except Timeout:
            continue


if __name__ == "__main__":
    main()
