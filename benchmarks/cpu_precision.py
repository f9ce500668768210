"""What bf16 autocast is worth on this processor, and what `precision: auto` makes of it: processor seconds of a step.

    python benchmarks/cpu_precision.py MODEL DOCUMENTS --threads 1

Float32 and bf16 autocast in turn, `--rounds` times, on the same documents, one a step; the median over all steps but
the first of every round. Processor seconds (of all threads), because a machine that others use has few others that mean
anything. Before them the race that decides (`models.bf16_speedup`), with its own seconds.
"""

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import described
from transformers import TrainerCallback

from afterword import models
from afterword.corpus import CorpusOptions, read_corpus
from afterword.data.batching import Packing
from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, quiet_libraries, training_arguments

PRECISIONS = {"float32": False, "bf16_mixed": True}


class StepSeconds(TrainerCallback):
    """Processor seconds of every optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start counting."""
        self.began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop counting."""
        self.seconds.append(time.process_time() - self.began)


def steps_of(asked: argparse.Namespace, method: str, precision: str, documents: Any) -> list[float]:
    """Processor seconds of some steps, the first left out."""
    watch, declared = StepSeconds(), METHODS[method]
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"max_steps": asked.steps + 1, "save_strategy": "no", "use_cpu": True}
        trainer = AdaptationTrainer(
            models.load_model(asked.model),
            training_arguments(declared, output_dir=folder, bf16=PRECISIONS[precision], **how),
            train_dataset=documents,
            processing_class=models.load_tokenizer(asked.model),
            method=declared,
            packing=Packing(512, example_tokens=2048),
            callbacks=[watch],
        )
        trainer.train()
    return watch.seconds[1:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("documents")
    parser.add_argument("--methods", default="disc,finetune")
    parser.add_argument("--steps", type=int, default=3, help="of a round, beside the first")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    quiet_libraries()
    warnings.filterwarnings("ignore")
    began = time.process_time()
    chosen = models.measured_precision(asked.model)
    racing = time.process_time() - began
    speedup = models.bf16_speedup(*models.layer_shape(models.load_config(asked.model)))
    print(f"{described('cpu', asked.threads)}: a layer is {speedup:.2f} times as fast under bf16 autocast, ", end="")
    print(f"so auto is {chosen} (decided in {racing:.2f} processor seconds)\n", flush=True)
    print("| method | float32, s | bf16 autocast, s | float32 / bf16 | auto |\n|---|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory() as folder:
        texts = [d.text for d in read_corpus(asked.documents, cache_dir=Path(folder), options=CorpusOptions())]
    for method in asked.methods.split(","):
        found = defaultdict[str, list[float]](list)
        for _ in range(asked.rounds):
            for precision in PRECISIONS:
                found[precision] += steps_of(asked, method, precision, [{"text": text} for text in texts])
        plain, half = (median(found[precision]) for precision in PRECISIONS)
        print(f"| {method} | {plain:.2f} | {half:.2f} | {plain / half:.2f} | {chosen} |", flush=True)


if __name__ == "__main__":
    main()
