"""Saved against trained: how much of the gain in loss is left in the folder that is served.

    python benchmarks/saved_against_trained.py MODEL DOCUMENTS --max-documents 8 -o runs/saved

Every method is run at every rate, fully and by LoRA with merge_adapter, `save_precision: auto`. Then the method's own
loss is computed in float32 over all that the run read: of the model as it was given, of the weights as they were
trained (the last checkpoint; of LoRA, base and adapter), and of the folder that was saved (merged/), each read from the
disk. The decision itself was made on a sample of that. Rows that are there are not measured again.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afterword import models
from afterword.settings.adapt import read_settings
from afterword.training import quiet_libraries, run_adaptation
from afterword.training.checkpoints import last_complete_checkpoint
from afterword.training.finish import gain_sample
from afterword.training.run import load_trainer

RATES = (3e-6, 1e-5, 3e-5, 1e-4)
METHODS = ("disc", "finetune")


def measured(asked: argparse.Namespace, method: str, rate: float, *, lora: bool) -> dict[str, Any]:
    """The row of one run."""
    folder = asked.output / f"{method}-{rate:g}{'-lora' if lora else ''}"
    shutil.rmtree(folder, ignore_errors=True)
    about = {"model_name_or_path": asked.model, "documents": asked.documents, "output_dir": str(folder)}
    how = {"max_documents": asked.max_documents, "num_train_epochs": asked.passes, "precision": asked.precision}
    # Asked for, so that the last checkpoint, which has the trained weights in float32, stays.
    how |= {"save_steps": 10_000, "seed": asked.seed, "use_peft": lora, "merge_adapter": lora}
    settings = read_settings({**about, **how, "method": method, "learning_rate": rate})
    began = time.perf_counter()
    run_adaptation(settings)
    seconds = time.perf_counter() - began
    said = json.loads((folder / "data.json").read_text(encoding="utf-8"))["saved"]
    losses = _losses(settings, folder, lora=lora)
    saved = said["merged"] if lora else said
    kept = (losses["before"] - losses["saved"]) / (losses["before"] - losses["trained"])
    shutil.rmtree(folder)
    return {
        "method": method,
        "rate": rate,
        "lora": lora,
        "losses": losses,
        "kept_frac": kept,
        "saved": saved,
        "run_seconds": seconds,
        "saving_seconds": said["seconds"],
    }


def _losses(settings: Any, folder: Path, *, lora: bool) -> dict[str, float]:
    """Over all that the run read, by what the model is."""
    # As the run read it, in float32 and with the teacher that the run had.
    plain = settings.model_copy(update={"precision": "float32", "use_peft": False, "merge_adapter": False})
    scratch = folder.with_name(folder.name + "-again")
    trainer, _ = load_trainer(plain, None, scratch)
    sample = gain_sample(trainer, everything=True)
    found = {"before": sample.loss(trainer.model)}
    shutil.rmtree(scratch, ignore_errors=True)
    trained = folder if lora else last_complete_checkpoint(folder)
    for name, path in (("trained", trained), ("saved", folder / "merged" if lora else folder)):
        found[name] = sample.loss(models.load_adapted(str(path)))
    return found


def _rows(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Of every run; those that are recorded already, from the file."""
    file = asked.output / "rows.jsonl"
    there = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for lora in (False, True):
        for method in asked.methods:
            for rate in asked.rates:
                key = {"method": method, "rate": rate, "lora": lora}
                row = next((row for row in there if key.items() <= row.items()), None)
                if row is None:
                    row = measured(asked, method, rate, lora=lora)
                    with file.open("a") as rows:
                        rows.write(json.dumps(row) + "\n")
                yield row


def main() -> None:
    """A line of a table for every run, as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/saved"))
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--max-documents", type=int, default=8)
    parser.add_argument("--passes", type=float, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    print("| method | rate | before, nats | trained | saved | kept, % | nearest, % | stochastic, % | saved in |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    for row in _rows(asked):
        name = row["method"] + (" + LoRA, merged" if row["lora"] else "")
        losses = " | ".join(f"{row['losses'][at]:.5f}" for at in ("before", "trained", "saved"))
        tried = " | ".join(_kept(row["saved"][way]) for way in ("nearest", "stochastic"))
        choice = f"{row['saved']['saved_in']}, {row['saved']['choice']}"
        print(
            f"| {name} | {row['rate']:g} | {losses} | {100 * row['kept_frac']:.2f} | {tried} | {choice} |", flush=True
        )


def _kept(way: dict[str, Any] | None) -> str:
    """Of the gain on the sample, by one way of saving."""
    if way is None:
        return "–"
    return f"{100 * way['gain_frac']:.1f}" if way["gain_frac"] is not None else f"cosine {way['cosine']:.2f}"


if __name__ == "__main__":
    main()
