"""Does `afterword adapt` with nothing set but a budget teach what the best of a grid teaches, and keep as much?

For each method: a grid of learning rates and numbers of passes, and the default (rate, passes and schedule chosen by
the run) with several seeds. Learning is the share of questions about the documents answered right, closed book, by
choice among four, and beside it the share whose written answer says it; kept is the mean share right over
multiple-choice tasks and over what the model writes itself: the fifty questions and instructions of the demo, which
lose what choices do not show. Every cell is a row of rows.jsonl: the same
command goes on where it was stopped, and several processes may share the work.

    python benchmarks/first_run.py MODEL --documents D.jsonl --questions Q.jsonl --keep TASK.jsonl … -o studies/NAME
    python benchmarks/first_run.py MODEL --documents D.jsonl --suite SUITE.jsonl -o studies/NAME
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from real_measures import Study, drawn, measured, read_study, rows_of

import afterword
from afterword.models import blended, load_model

RATES, PASSES, SEEDS = (2e-4, 6e-5, 6e-4, 2e-5), (6, 2), (0, 1, 2)


def cells_of(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every cell: the base, the grid of each method, then the defaults."""
    yield {"arm": "base"}
    for rate in args.rates if "grid" in args.cells else ():
        for epochs in args.passes:
            for method in args.methods:
                yield {"arm": method, "learning_rate": rate, "num_train_epochs": epochs, "seed": 0}
    for seed in args.seeds if "defaults" in args.cells else ():
        for method in args.methods:
            yield {"arm": method, "default": True, "seed": seed}


def run_cell(study: Study, cell: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one cell. A cell of the grid is saved as it was trained."""
    if cell["arm"] == "base":
        return {**cell, **measured(study, study.reference)}
    folder, started = args.output / "cells" / _name(cell), time.perf_counter()
    settings = {name: cell[name] for name in ("learning_rate", "num_train_epochs", "seed") if name in cell}
    settings |= {"precision": args.precision, "max_documents": args.max_documents} | json.loads(args.settings)
    if not cell.get("default"):
        settings |= {"lr_scheduler_type": "linear", "warmup_steps": 0.05, "save_precision": "float32"}
    elif args.budget:
        settings |= {"forgetting_budget": args.budget}
    settings |= json.loads(args.mixture) if cell["arm"] in args.mixing else {}
    with torch.enable_grad():
        afterword.adapt(args.model, str(args.chosen), method=cell["arm"], output_dir=str(folder), **settings)
    seconds = time.perf_counter() - started
    trained = load_model(str(folder)).eval()
    row = {**cell, **measured(study, trained), "train_seconds": seconds}
    if args.shares and not cell.get("default"):
        row["way"] = [
            {"share": share, **measured(study, blended(study.reference, trained, share))} for share in args.shares
        ]
    if (folder / "budget.json").is_file():
        row["budget"] = json.loads((folder / "budget.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    return row


def _name(cell: dict[str, Any]) -> str:
    return "-".join(str(value) for value in cell.values())


def main() -> None:
    """Every cell that has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--documents", type=Path, required=True)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--questions", type=Path)
    asked.add_argument("--suite", type=Path, help="What is learned and what is kept, instead of questions.")
    parser.add_argument("--quiz", type=Path, help="A second set of questions, of `afterword quiz`: its test half.")
    parser.add_argument("--keep", type=Path, nargs="*", default=[])
    parser.add_argument("--methods", nargs="+", default=["finetune", "disc", "disc_mixcpt"])
    parser.add_argument("--mixing", nargs="*", default=["disc_mixcpt"], help="Methods that get the mixture.")
    parser.add_argument("--mixture", default="{}", help="JSON settings of general text, for methods that mix.")
    parser.add_argument("--settings", default="{}", help="JSON: more settings of every run.")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="Of the grid.")
    parser.add_argument("--passes", type=int, nargs="+", default=PASSES, help="Of the grid.")
    parser.add_argument("--max-documents", type=int, default=30)
    parser.add_argument("--max-questions", type=int, default=100)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[], help="Of the way of a grid's cell, measured too."
    )
    parser.add_argument("--budget", help="Forgetting budget of the defaults; the product's own if not given.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="Of the defaults.")
    parser.add_argument("--cells", nargs="+", choices=("grid", "defaults"), default=["grid", "defaults"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    args.chosen = args.output / "documents.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in drawn(rows_of(args.documents), args.max_documents)]
    args.chosen.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, study = args.output / "rows.jsonl", read_study(args)
    for cell in cells_of(args):
        try:
            with FileLock(args.output / f"{_name(cell)}.lock", timeout=0):
                there = [row for row in (rows_of(rows) if rows.exists() else []) if _name(cell) == row["cell"]]
                if there:
                    continue
                row = {"cell": _name(cell), **run_cell(study, cell, args)}
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                short = {name: row[name] for name in ("cell", "choice_frac", "said_frac", "kept_frac", "drift_nats")}
                print(json.dumps(short), flush=True)
        except Timeout:
            continue


if __name__ == "__main__":
    main()
