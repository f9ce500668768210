"""What is done with logits once they are there, as it runs and as torch.compile would have it: losses and gradient.

    python benchmarks/epilogue.py --threads 2                      # under a minute on two cores
    python benchmarks/epilogue.py --threads 2 --at-once            # as if there were no cache to keep to
    python benchmarks/epilogue.py --device cuda --positions 2048 --vocabulary 151936

Between its two products a fused loss (objectives/fused.py) passes over [N, V] logits: objectives/closed_forms.py, in
plain operations, on a CPU for as many rows at a time as its cache holds. A compiler makes fewer passes of them. Here
both run in turn in one process; the fastest of `--repeats` counts, compilation does not. "limit" is the logits of both
sides read once and the gradient written once, at the speed of a large copy. Nothing is asserted.
"""

import argparse
import time
from collections.abc import Callable

import torch
from loss import DIVERGENCES
from machine import chosen_device, copied_bytes, described, versions, wait_for
from torch import Tensor

from afterword.objectives import Objective, closed_forms

Epilogue = Callable[[Tensor, Tensor, Tensor], tuple[dict[str, Tensor], Tensor | None]]
"""Logits of student and teacher, which are overwritten, and gold ids → parts and the gradient on the student's."""


def epilogue(objective: Objective) -> Epilogue:
    """What fused.py calls on a chunk."""
    form = objective.form
    assert form is not None, "every objective of the table has a closed form"

    def found(student_NV: Tensor, teacher_NV: Tensor, ids_N: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Tensors alone, which a compiler can return."""
        of_rows = closed_forms.evaluate(form, student_NV, teacher_NV, ids_N, gradient=True)
        return {**of_rows.parts}, of_rows.gradient

    return found


def fastest(run: Epilogue, given: tuple[Tensor, Tensor, Tensor], repeats: int) -> float:
    """Seconds on fresh copies of the logits, which are made before the clock starts."""
    seconds = []
    for _ in range(repeats + 1):
        copies = [tensor.clone() for tensor in given]
        wait_for(copies[0].device)
        started = time.perf_counter()
        run(*copies)
        wait_for(copies[0].device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def apart(a: Tensor | None, b: Tensor | None) -> float:
    """The relative distance of two gradients."""
    assert a is not None, "gradients were asked for"
    assert b is not None, "gradients were asked for"
    return float((a - b).norm() / b.norm())


def main() -> None:
    """A line for every objective."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--at-once", action="store_true", help="all rows at a time, on a CPU too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device, shape = chosen_device(asked.device), (asked.positions, asked.vocabulary)
    if asked.at_once:
        closed_forms._CACHED_VALUES = asked.positions * asked.vocabulary
    torch._dynamo.config.recompile_limit = 2 * len(DIVERGENCES)
    print(f"{described(device, asked.threads)}; {versions('torch')}; N = {shape[0]:,}, V = {shape[1]:,}, float32\n")
    limit = 3 * 4 * shape[0] * shape[1] / copied_bytes(device)
    print("| | plain, ms | compiled, ms | compiled / plain | gradients apart | limit, ms |\n|---|--:|--:|--:|--:|--:|")
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(*shape, generator=generator)
    student = teacher + 0.05 * torch.randn(*shape, generator=generator)
    given = (student.to(device), teacher.to(device), torch.zeros(shape[0], dtype=torch.int64, device=device))
    for name, objective in DIVERGENCES.items():
        plain = epilogue(objective)
        compiled: Epilogue = torch.compile(plain, dynamic=False)
        off = apart(*(run(*(tensor.clone() for tensor in given))[1] for run in (compiled, plain)))
        seconds = [fastest(run, given, asked.repeats) for run in (plain, compiled)]
        cells = [f"{1000 * s:.2f}" for s in seconds] + [f"{seconds[1] / seconds[0]:.2f}", f"{off:.0e}"]
        print(f"| {name} | {' | '.join(cells)} | {1000 * limit:.2f} |", flush=True)


if __name__ == "__main__":
    main()
