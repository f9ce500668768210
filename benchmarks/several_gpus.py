"""Several processes beside one, from the command line: the same losses and scores? in what time?

    python benchmarks/several_gpus.py                                    # one process for each GPU, whole and in shards
    python benchmarks/several_gpus.py --device cpu --steps 2 --items 8   # two processes by gloo

The embedded chat model learns documents of its world by DiSC in float32, and is asked the suite: by
one process, by several that have the whole model each, and on GPUs by several with shards (FSDP2). It is a small model:
what is seen is that they come to the same, and what starting them costs, not how a large model scales. Exit status 1
if losses are further apart than `--tolerance`, or scores than an item in fifty.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from attempts import append_row

_SHARDED = ("--trainer", "fsdp=true", "--trainer", 'fsdp_config={"version": 2}')
_ITEM_FRAC = 0.02
"""By so much may a share of right answers differ: reduced in another order, a near tie falls the other way."""


@dataclass(frozen=True)
class Launch:
    """How a run is started."""

    name: str
    processes: int
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    losses_nats: list[float]
    """Of every step."""
    scores: dict[str, float]
    train_seconds: float
    """Of the command, with its start."""
    evaluate_seconds: float


def launches(device: str, processes: int) -> list[Launch]:
    """One process, and what is held against it."""
    several = [Launch(f"{processes} processes, whole", processes)]
    sharded = [Launch(f"{processes} processes, FSDP2", processes, _SHARDED)] if device == "cuda" else []
    return [Launch("one process", 1), *several, *sharded]


def run(launch: Launch, folder: Path, asked: argparse.Namespace) -> Outcome:
    """Train and evaluate."""
    result, world = folder / launch.name.replace(" ", "-").replace(",", ""), folder / "world"
    learn = ("--method", "disc", "--max-steps", str(asked.steps), "--documents-per-step", "8", "--seed", "0")
    learn += ("--learning-rate", "1e-3", "--precision", "float32", *launch.options)
    train_seconds = timed(
        launch, asked, "adapt", "almanac-chat", str(world / "documents.jsonl"), "-o", str(result), *learn
    )
    suite = ("--suite", str(world / "some.jsonl"))
    evaluate_seconds = timed(launch, asked, "evaluate", str(result), *suite)
    steps = map(json.loads, (result / "metrics.jsonl").read_text("utf-8").splitlines())
    losses = [float(step["train/loss_nats"]) for step in steps if "train/loss_nats" in step]
    scores = json.loads((result / "scores.json").read_text("utf-8"))["scores"]
    named = {f"{row['task']}/{row['metric']}": float(row["after"]["value"]) for row in scores if row.get("after")}
    return Outcome(losses, named, train_seconds, evaluate_seconds)


def timed(launch: Launch, asked: argparse.Namespace, *words: str) -> float:
    """Seconds of a command as a person starts it."""
    start = [sys.executable, "-m", "afterword", *words]
    if launch.processes > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc_per_node", str(launch.processes), "-m", "afterword", *words]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if asked.device == "cpu" else {}
    began = time.monotonic()
    subprocess.run(start, check=True, env={**os.environ, **hidden})
    return time.monotonic() - began


def apart(before: Outcome, after: Outcome) -> tuple[float, float]:
    """The largest difference of a step's loss, relative, and of a share of right answers."""
    assert len(before.losses_nats) == len(after.losses_nats) > 0, "the same steps"
    assert before.scores.keys() == after.scores.keys(), "the same scores"
    losses = zip(before.losses_nats, after.losses_nats, strict=True)
    shares = [name for name in before.scores if name.endswith("_frac")]
    return (
        max(abs(a - b) / max(abs(a), 1e-12) for a, b in losses),
        max((abs(before.scores[name] - after.scores[name]) for name in shares), default=0.0),
    )


def some_of(suite: Path, items: int) -> None:
    """Fewer items of the suite, at even distances, in a file beside it."""
    head, *rows = suite.read_text("utf-8").splitlines()
    chosen = rows[:: max(1, len(rows) // items)][:items]
    (suite.parent / "some.jsonl").write_text("\n".join([head, *chosen]) + "\n", "utf-8")


def compared(found: Mapping[str, Outcome], asked: argparse.Namespace) -> bool:
    """A line for each; whether all came to the same."""
    (first, one), same = next(iter(found.items())), True
    print("| | adapt, s | evaluate, s | losses apart, relative | scores apart |\n|---|--:|--:|--:|--:|")
    for name, outcome in found.items():
        loss, score = apart(one, outcome)
        same &= loss <= asked.tolerance and score <= _ITEM_FRAC
        row = {"table": "processes", "name": name, "losses_apart": loss, "scores_apart": score}
        seconds = {"adapt_seconds": outcome.train_seconds, "evaluate_seconds": outcome.evaluate_seconds}
        append_row(asked.json, row | seconds)
        cells = ("–", "–") if name == first else (f"{loss:.1g}", f"{score:.3f}")
        print(f"| {name} | {outcome.train_seconds:.1f} | {outcome.evaluate_seconds:.1f} | {' | '.join(cells)} |")
    return same


def main(words: Sequence[str] | None = None) -> int:
    """All of them, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="one for each GPU, two on a CPU, if not given")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--items", type=int, default=200, help="of the suite")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="between losses, relative")
    parser.add_argument("--json", type=Path, help="file that rows are added to")
    asked = parser.parse_args(words)
    processes = asked.processes or (torch.cuda.device_count() if asked.device == "cuda" else 2)
    if processes < 2:
        append_row(asked.json, {"table": "processes", "missed": "one GPU here: nothing to compare"})
        print("One GPU here: there is nothing to compare.")
        return 0
    with tempfile.TemporaryDirectory(prefix="afterword-several-") as folder:
        world = Path(folder) / "world"
        timed(Launch("world", 1), asked, "almanac", str(world))
        some_of(world / "suite.jsonl", asked.items)
        found = {each.name: run(each, Path(folder), asked) for each in launches(asked.device, processes)}
    return 0 if compared(found, asked) else 1


if __name__ == "__main__":
    sys.exit(main())
