"""How long `afterword evaluate --tasks` takes beside plain lm_eval, for the same items: both times, and their ratio.

    python benchmarks/tasks_beside_lm_eval.py smollm2-135m-instruct keep_hellaswag.yaml

Both are commands, from their start to their last line, and take turns. lm_eval is told the model's folder, the items,
whether the chat template is applied, and a batch size; its harness is the one that Afterword calls. Wall time is what a
person waits; processor time is what it took, on a machine that does other things too.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from afterword.evaluation.task_files import with_found_data
from afterword.evaluation.task_loading import Asking, load_tasks
from afterword.models import load_tokenizer, model_folder


@dataclass(frozen=True)
class Took:
    """What a command took, and what it found."""

    wall_seconds: float
    processor_seconds: float
    accuracy: float


def took(command: list[str], pattern: str) -> Took:
    """Run a command to its end; the accuracy is what the pattern finds in what it says."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(pattern, ended.stdout)
    if ended.returncode or not found:
        sys.exit(f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, spent, float(found[1]))


def commands(
    model: str, task: Path, items: int, batch: int, seed: int, scratch: Path
) -> dict[str, tuple[list[str], str]]:
    """Both commands, each with the pattern of the accuracy that it prints."""
    # The harness looks for a task's data from where it runs: it is given the same file with whole paths.
    whole = scratch / task.name
    whole.write_text(yaml.safe_dump(with_found_data(yaml.safe_load(task.read_text(encoding="utf-8")), task)))
    chat = bool(load_tokenizer(model).chat_template)
    ours = [sys.executable, "-m", "afterword", "evaluate", model, "--tasks", str(task)]
    ours += ["--tasks-limit", str(items), "--seed", str(seed)]
    (loaded,) = load_tasks([str(task)], asking=Asking(limit=items, seed=seed)).tasks
    samples = json.dumps({name: list(places) for name, places in loaded.items.items()})
    theirs = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model_folder(model)}"]
    theirs += ["--tasks", str(whole), "--samples", samples, "--batch_size", str(batch), "--device", "cpu"]
    theirs += ["--apply_chat_template", "--fewshot_as_multiturn"] if chat else []
    return {
        "afterword": (ours, r"\n\s+acc\s+–\s+([\d.]+)"),
        f"lm_eval, batch {batch}": (theirs, r"\|acc\s*\|[^|]*\|([\d.]+)\|"),
    }


def main() -> None:
    """A row for each command, and the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("task", type=Path, help="a task file of a multiple choice")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8, help="of lm_eval, whose own is 1")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_DATASETS_CACHE"] = cache
        both = commands(asked.model, asked.task, asked.items, asked.batch, asked.seed, Path(cache))
        found = {name: list[Took]() for name in both}
        for _ in range(asked.rounds):
            for name, (command, pattern) in both.items():
                found[name].append(took(command, pattern))
    print(f"{asked.task.stem}, {asked.items} items, {asked.model}, median of {asked.rounds}:")
    print("| | wall, s | processor, s | acc |\n|---|--:|--:|--:|")
    rows = [[median(getattr(each, of) for each in own) for of in Took.__dataclass_fields__] for own in found.values()]
    for name, (wall, spent, accuracy) in zip(found, rows, strict=True):
        print(f"| {name} | {wall:.0f} | {spent:.0f} | {accuracy:.3f} |")
    print(f"| ratio | {rows[0][0] / rows[1][0]:.2f} | {rows[0][1] / rows[1][1]:.2f} | |")


if __name__ == "__main__":
    main()
