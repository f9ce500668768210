"""Where the time of an optimizer step goes: batches, teacher, student, loss, backward, optimizer.

    python benchmarks/step_profile.py --threads 2
    python benchmarks/step_profile.py --threads 2 --method mixcpt --vocabulary 151936

Model and documents are those of benchmarks/epoch.py. Wall seconds of each part, the median over steps after the first
two, and its share; "limit" is what the counted multiply-adds of that part take at the speed that one large float32
product of this machine reaches, measured in the same process. Head and divergence are part of the loss, with their
gradient; what follows as backward is the backbone's.
"""

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

import epoch
import torch

from afterword import models
from afterword.batching import Packing
from afterword.comparison.costs import size_of
from afterword.training import AdaptationTrainer, trainer, training_arguments

PARTS = ("batches", "teacher", "student", "loss", "backward", "optimizer")


class Stopwatch:
    """Seconds of named parts, by step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.now: dict[str, float] = defaultdict(float)

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted."""

        @wraps(function)
        def timed(*args: Any, **how: Any) -> Any:
            """The same."""
            began = time.perf_counter()
            try:
                return function(*args, **how)
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.now[name] += time.perf_counter() - began

        return timed

    def end_step(self) -> None:
        """What was counted since the last step is one."""
        self.steps.append(dict(self.now))
        self.now.clear()

    def median(self, name: str) -> float:
        """Of the steps after the first two."""
        return median(step.get(name, 0.0) for step in self.steps[2:])


def profiled(asked: Any) -> tuple[Stopwatch, AdaptationTrainer, list[dict[str, int]]]:
    """A short training with every part timed, and what each step read."""
    from afterword.methods import METHODS

    watch, counts, clock = Stopwatch(), list[dict[str, int]](), epoch.Clock()
    rows = [{"id": str(i), "text": " ".join(parts)} for i, parts in enumerate(asked.documents)]
    declared = METHODS[asked.method].configured(**({"strategy": asked.strategy} if asked.strategy else {}))
    arguments = training_arguments(
        declared, output_dir=str(asked.folder), max_steps=asked.steps, save_strategy="no", learning_rate=1e-5
    )
    made = AdaptationTrainer(
        epoch.model(),
        arguments,
        train_dataset=rows,
        processing_class=epoch.tokenizer(),
        method=declared,
        documents_per_step=asked.per_step,
        packing=Packing(asked.micro_batch_tokens),
        callbacks=[clock],
    )
    step = made.training_step

    def one(*args: Any, **how: Any) -> Any:
        """A step ends where the next one begins: its batches and its optimizer are in it."""
        result = step(*args, **how)
        counts.append(dict(made.step_counts))
        return result

    made.training_step = one  # pyright: ignore
    made.get_batch_samples = watch.around("batches", made.get_batch_samples)  # pyright: ignore
    made.accelerator.backward = watch.around("backward", made.accelerator.backward)
    made.create_optimizer()
    assert made.optimizer
    made.optimizer.step = watch.around("optimizer", made.optimizer.step)
    if made.teacher:
        object.__setattr__(made.teacher, "trained_states", watch.around("teacher", made.teacher.trained_states))  # pyright: ignore
    models.trained_states_through = watch.around("student", models.trained_states_through)
    trainer.weighted_sum = watch.around("loss", trainer.weighted_sum)
    on_end = clock.on_step_end
    clock.on_step_end = lambda *args, **how: (on_end(*args, **how), watch.end_step())[0]  # pyright: ignore
    made.train()
    watch.total = clock.seconds  # pyright: ignore
    return watch, made, counts


def product_flops_per_second() -> float:
    """Of a large float32 product here."""
    a, b = torch.randn(1024, 2048), torch.randn(2048, 4096)
    if torch.cuda.is_available():
        a, b = a.cuda(), b.cuda()
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * 1024 * 2048 * 4096 / best


def counted(made: AdaptationTrainer, read: dict[str, float]) -> dict[str, float]:
    """FLOPs of every part by METHODS §1."""
    size = size_of(made.model)
    student, teacher = 2 * size.backbone * read["student_tokens"], 2 * size.backbone * read["teacher_tokens"]
    heads = 2 * size.hidden * size.vocabulary * (3 * read["trained_positions"] + read["teacher_positions"])
    return {"teacher": teacher, "student": student, "loss": heads, "backward": 2 * student}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="disc")
    parser.add_argument("--strategy", default="")
    parser.add_argument("--vocabulary", type=int, default=epoch.VOCABULARY)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--per-step", type=int, default=8)
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")
    epoch.VOCABULARY = asked.vocabulary
    asked.documents = epoch.sentences_of(asked.per_step * asked.steps)
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = Path(folder)
        watch, made, counts = profiled(asked)
    read = {
        name: median(row.get(name, 0) for row in counts)
        for name in ("student_tokens", "teacher_tokens", "trained_positions", "teacher_positions")
    }
    speed, flops = product_flops_per_second(), counted(made, read)
    whole = watch.total  # pyright: ignore
    print(f"\n{asked.method} {asked.strategy}, {asked.threads} threads, V = {asked.vocabulary:,}, {read}")
    print(f"one large product: {speed / 1e9:.0f} GFLOP/s; a step: {whole:.2f} s\n")
    print("| part | seconds | share | limit |\n|---|--:|--:|--:|")
    parts = {name: watch.median(name) for name in PARTS}
    parts["the rest"] = whole - sum(parts.values())
    for name, seconds in parts.items():
        limit = f"{flops[name] / speed:.2f}" if flops.get(name) else "–"
        print(f"| {name} | {seconds:.3f} | {100 * seconds / whole:.0f} % | {limit} |")


if __name__ == "__main__":
    main()
