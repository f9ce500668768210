"""Where the time of an optimizer step goes: batches, teacher, student, loss, backward, optimizer.

    python benchmarks/step_profile.py --threads 2
    python benchmarks/step_profile.py --threads 2 --method mixcpt --vocabulary 151936

Model and documents are those of benchmarks/epoch.py. Wall seconds of each part, the median over steps after the first
two, and its share; "limit" is what the counted multiply-adds of that part take at the speed that one large float32
product of this machine reaches, and what AdamW reads and writes at that of a copy, measured in the same process. Head
and divergence are part of the loss, with their gradient; what follows as backward is the backbone's.
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

import torch
from counting import Meter
from machine import adamw_bytes, chosen_device, copied_bytes, product_flops, wait_for
from shapes import VOCABULARY, random_model
from texts import documents_of, rows_of, tokenizer

from afterword import models
from afterword.data.batching import Packing
from afterword.training import AdaptationTrainer, quiet_libraries, trainer, training_arguments

PARTS = ("batches", "teacher", "student", "loss", "backward", "optimizer")


class Stopwatch:
    """Seconds of named parts, by step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
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
                wait_for(self.device)
                self.now[name] += time.perf_counter() - began

        return timed

    def end_step(self) -> None:
        """What was counted since the last step is one."""
        self.steps.append(dict(self.now))
        self.now.clear()

    def median(self, name: str) -> float:
        """Of the steps after the first two."""
        return median(step.get(name, 0.0) for step in self.steps[2:])


class StepEnds(Meter):
    """Also ends the steps of a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__(watch.device)
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of both."""
        super().on_step_end(args, state, control)
        self.watch.end_step()


def profiled(asked: Any) -> tuple[Stopwatch, AdaptationTrainer, Meter, list[dict[str, int]]]:
    """A short training with every part timed, and what each step read."""
    from afterword.methods import METHODS

    watch, counts = Stopwatch(asked.device), list[dict[str, int]]()
    meter, cpu = StepEnds(watch), asked.device.type == "cpu"
    declared = METHODS[asked.method].configured(**({"strategy": asked.strategy} if asked.strategy else {}))
    how: dict[str, Any] = {"max_steps": asked.steps, "save_strategy": "no", "learning_rate": 1e-5, "use_cpu": cpu}
    made = AdaptationTrainer(
        random_model("30m", device=asked.device, vocab_size=asked.vocabulary),
        training_arguments(declared, output_dir=str(asked.folder), **how),
        train_dataset=rows_of(documents_of(asked.per_step * asked.steps, asked.vocabulary)),
        processing_class=tokenizer(asked.vocabulary),
        method=declared,
        documents_per_step=asked.per_step,
        packing=Packing(asked.micro_batch_tokens),
        callbacks=[meter],
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
    optimizer: Any = made.optimizer
    optimizer.step = watch.around("optimizer", optimizer.step)
    if made.teacher:
        object.__setattr__(made.teacher, "trained_states", watch.around("teacher", made.teacher.trained_states))  # pyright: ignore
    models.trained_states_through = watch.around("student", models.trained_states_through)
    trainer.weighted_sum = watch.around("loss", trainer.weighted_sum)
    made.train()
    return watch, made, meter, counts


def limits(made: AdaptationTrainer, read: dict[str, float], device: torch.device) -> tuple[dict[str, float], float]:
    """Seconds that every part takes at least, by METHODS §1; and the speed of a product."""
    size, speed = models.size_of(made.model), product_flops(device)
    student, teacher = (2 * size.backbone * read[f"{side}_tokens"] for side in ("student", "teacher"))
    heads = 2 * size.hidden * size.vocabulary * (3 * read["trained_positions"] + read["teacher_positions"])
    flops = {"teacher": teacher, "student": student, "loss": heads, "backward": 2 * student}
    found = {name: count / speed for name, count in flops.items()}
    return found | {"optimizer": adamw_bytes(made.model.parameters()) / copied_bytes(device)}, speed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="disc")
    parser.add_argument("--strategy", default="")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--per-step", type=int, default=8)
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    quiet_libraries()
    warnings.filterwarnings("ignore")
    asked.device = chosen_device(asked.device)
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = Path(folder)
        watch, made, meter, counts = profiled(asked)
    read = {
        name: median(row.get(name, 0) for row in counts)
        for name in ("student_tokens", "teacher_tokens", "trained_positions", "teacher_positions")
    }
    least, speed = limits(made, read, asked.device)
    whole = meter.seconds
    print(f"\n{asked.method} {asked.strategy}, {asked.threads} threads, V = {asked.vocabulary:,}, {read}")
    print(f"one large product: {speed / 1e9:.0f} GFLOP/s; a step: {whole:.2f} s\n")
    print("| part | seconds | share | limit |\n|---|--:|--:|--:|")
    parts = {name: watch.median(name) for name in PARTS}
    parts["the rest"] = whole - sum(parts.values())
    for name, seconds in parts.items():
        limit = f"{least[name]:.2f}" if least.get(name) else "–"
        print(f"| {name} | {seconds:.3f} | {100 * seconds / whole:.0f} % | {limit} |")


if __name__ == "__main__":
    main()
